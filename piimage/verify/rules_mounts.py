"""Rules about what is mounted: fstab, mount units, shares, and names that a first boot makes stale."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.bases.guest_text import fstab, mount_unit
from piimage.bases.layout import mount_lines, partition_of
from piimage.bases.units import ADMIN
from piimage.components.fstab import PATIENT
from piimage.facts import FileFact
from piimage.verify.catalog import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.bases.guest_text import FstabLine
    from piimage.verify.view import View

_NAMED = ("label", "uuid", "partuuid", "/dev/disk/by-", "/dev/mapper/", "/dev/mmcblk", "/dev/sd")
_NFS = ("nfs", "nfs4")
_COUNT = re.compile(r"[0-9]")
#: Where else a partition may be named by the disk's id.
_BY_ID = ("/etc/crypttab", "/etc/kernel/cmdline", "/etc/default/grub")
_BY_ID_ENDS = (".mount", ".swap", ".rules")


def mounts(view: View) -> Iterator[Finding]:
    """PI203: every line of fstab can be read, and leads to what is there."""
    path = "/etc/fstab"
    text = view.text(path)
    parsed = _mounted(view)
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            yield from _readable(path, words)
    targets = [entry.target for entry in fstab(text)]
    for target in sorted(set(targets)):
        if targets.count(target) > 1:
            yield Finding("PI203", path, f"`{target}` is mounted twice")
    for target in ("/", view.place.mountpoint):
        if target not in {entry.target for entry in parsed}:
            yield Finding("PI203", path, f"nothing is mounted on `{target}`")
    for entry in parsed:
        if entry.spec.lower().startswith(_NAMED):
            yield from _leads(view, path, entry)


def _mounted(view: View) -> list[FstabLine]:
    """What fstab and the image's own mount units mount."""
    listing = {
        path: FileFact(kind=s.kind, mode=s.mode, uid=s.uid, gid=s.gid, target=s.target or None)
        for path, s in view.root.items()
        if path.startswith(f"{ADMIN}/") and path.endswith(".mount")
    }
    contents = {path: view.read(path) or b"" for path, f in listing.items() if f.kind == "file"}
    # what a share mounts is no partition of the card
    lines = mount_lines(view.text("/etc/fstab"), listing, contents)
    return [line for line in lines if line.fstype not in _NFS]


def _leads(view: View, path: str, entry: FstabLine) -> Iterator[Finding]:
    """To a partition of this card, to the right one, with the right type."""
    partition = partition_of(entry.spec, view.table)
    own = {"/": view.place.root, view.place.mountpoint: view.place.firmware}
    if partition is None:
        if entry.target in own or not set(entry.options) & set(PATIENT):
            yield Finding("PI203", path, f"`{entry.spec}` is not on this card")
        return
    due = own.get(entry.target)
    if due not in (None, partition.number):
        yield Finding("PI203", path, f"`{entry.target}` gets another partition than its own")
    kind = partition.filesystem.type if partition.filesystem else "nothing"
    if entry.fstype not in ("auto", kind):
        yield Finding("PI203", path, f"`{entry.spec}` holds {kind}, not {entry.fstype}")


def _readable(path: str, words: list[str]) -> Iterator[Finding]:
    """Enough fields, a place, and numbers where fstab(5) has numbers."""
    if len(words) < 3 or not (words[1].startswith("/") or words[1] in ("none", "swap")):  # noqa: PLR2004 -- see above
        yield Finding("PI203", path, "it has a line that mount(8) cannot read")
    for word in words[4:6]:
        if not _COUNT.fullmatch(word):
            yield Finding("PI203", path, f"`{word}` is not a number in the line of `{words[1]}`")


def mount_points(view: View) -> Iterator[Finding]:
    """PI203: where something is mounted, nothing else is than a directory."""
    for entry in _mounted(view):
        seen = view.root.get(entry.target)
        if entry.fstype in _NFS or entry.target == "/" or entry.fstype == "swap":
            continue
        if seen is not None and seen.kind not in (
            "dir",
            "link",
        ):  # systemd makes one that is missing
            yield Finding("PI203", entry.target, "fstab mounts on it, and it is no directory")


def renewed(view: View) -> Iterator[Finding]:
    """PI203: a first boot that renews the disk's id puts it into fstab and the command line, and nowhere else."""
    if not view.renews_disk_id:
        return
    old = re.compile(rf"\b{re.escape(view.table.disk_id)}-[0-9a-f]{{2}}\b", re.IGNORECASE)
    for path in view.root:
        if path in _BY_ID or path.endswith(_BY_ID_ENDS):
            found = old.search(view.text(path))
            if found:
                words = f"`{found[0]}` is a partition of this card, and none after its first boot"
                yield Finding("PI203", path, words)


def helpers(view: View) -> Iterator[Finding]:
    """PI223: a share needs mount.nfs(8), which Raspberry Pi OS trixie comes without."""
    if view.resolves("/usr/sbin/mount.nfs"):
        return
    lines = [("/etc/fstab", line) for line in fstab(view.text("/etc/fstab"))]
    for path in (p for p in view.root if p.startswith(f"{ADMIN}/") and p.endswith(".mount")):
        unit = mount_unit(view.text(path))
        lines += [(path, unit)] if unit is not None else []
    for path, line in lines:
        if line.fstype in _NFS:
            yield Finding("PI223", path, f"`{line.target}` needs mount.nfs, which is not there")


RULES = (mounts, mount_points, renewed, helpers)
