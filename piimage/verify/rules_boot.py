"""Rules about the way from power to login: command line, firmware, growth, targets, clocks."""

from __future__ import annotations

import posixpath
import re
import time
from typing import TYPE_CHECKING

from piimage.bases.layout import partition_of
from piimage.bases.units import ADMIN, VENDOR
from piimage.components.growth import UNIT
from piimage.components.identity import MACHINE_ID
from piimage.components.timesync import CLOCK_EPOCH
from piimage.distros import boot_loader
from piimage.distros.firmware_config import CONFIG
from piimage.distros.firmware_hook import DEFAULTS, HOOK, HOOK_CMDLINE
from piimage.verify.catalog import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.facts import Partition
    from piimage.verify.view import View

_GROWS = "rpi-resize.service"
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
#: Debian's images for the Raspberry Pi grow by their own initramfs alone, which is lost when it is made anew, and the
#: files that it was made with are not there any more (image-specs). cloud-init does it by this program.
_IMAGE_ID, _GROWPART = "/etc/raspi-image-id", "/usr/bin/growpart"
_ROOT_PART = re.compile(r"^[ \t]*ROOTPART=[\"']?([^\"'\s]+)", re.MULTILINE)
_MERGED = ("/bin", "/lib", "/sbin")
#: Whose times the clock goes on from: systemd's own, timesyncd's, chronyd's with `-s` (Debian's, and Fedora's).
_CLOCKS = (
    CLOCK_EPOCH,
    "/var/lib/systemd/timesync/clock",
    "/var/lib/chrony/chrony.drift",
    "/var/lib/chrony/drift",
)
_DAY, _MOST = 86400, 20


def command_line(view: View) -> Iterator[Finding]:
    """PI201, PI202: one line, and a root that is this card's, in each that may be booted with."""
    for path in view.entries or [view.cmdline]:
        yield from _command_line(view, path)


def _command_line(view: View, path: str) -> Iterator[Finding]:
    text = view.text(path)
    if path in view.entries:
        yield from _entry(view, path, text)
        text = boot_loader.options(text)
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        yield Finding("PI201", path, "there is no kernel command line")
        return
    if len(lines) > 1:
        yield Finding("PI201", path, "it has a second line, which nobody reads")
    if "\r" in text or "\0" in text:
        yield Finding("PI201", path, "it has carriage returns or zeros in it")
    tokens = view.tokens_of(path)
    roots = [token.removeprefix("root=") for token in tokens if token.startswith("root=")]
    if not roots:
        yield Finding("PI202", path, "it has no `root=`")
        return
    if len(roots) > 1:
        yield Finding("PI202", path, f"it has {len(roots)} of `root=`")
    partition = partition_of(roots[-1], view.table)
    if partition is None or partition.number != view.place.root:
        yield Finding("PI202", path, f"`root={roots[-1]}` is not the root file system of this card")
    yield from _activated(path, tokens, partition)
    for token in tokens:
        name = token.removeprefix("init=")
        if name != token and not view.resolves(name):
            yield Finding("PI202", path, f"`{token}` names a program that is not there")


def _entry(view: View, path: str, text: str) -> Iterator[Finding]:
    """PI204: what an entry of the boot loader names is beside it."""
    top = path.removesuffix(f"/{boot_loader.ENTRIES}/{posixpath.basename(path)}")
    for key in ("linux", "initrd"):
        name = boot_loader.field(text, key)
        if name and f"{top}{name}" not in view.root:
            yield Finding("PI204", path, f"it names `{name}`, which is not there")


def next_command_line(view: View) -> Iterator[Finding]:
    """PI202: where a package writes the command line anew, it too has a root that is this card's."""
    if HOOK_CMDLINE not in view.text(HOOK):
        return
    for root in _ROOT_PART.findall(view.text(DEFAULTS))[-1:]:
        partition = partition_of(root, view.table)
        if partition is None or partition.number != view.place.root:
            words = f"`ROOTPART={root}` is not the root file system of this card: it comes with the next kernel"
            yield Finding("PI202", DEFAULTS, words)


def firmware_files(view: View) -> Iterator[Finding]:
    """PI204: kernel and initramfs that config.txt names for every board are there."""
    place = view.place.mountpoint
    path = f"{place}/{CONFIG}"
    text = view.config
    if not text:
        return
    folder = posixpath.dirname(view.cmdline)
    everywhere = True
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            everywhere = line.lower() == "[all]"
        found = re.fullmatch(r"kernel=(\S+)|initramfs[ =](\S+).*", line)
        name = (found[1] or found[2]) if found else ""
        if everywhere and name and not _on_fat(view, folder, name):
            yield Finding("PI204", path, f"it names `{name}`, which is not there")


def _on_fat(view: View, folder: str, name: str) -> bool:
    names = {path.casefold() for path in view.firmware}
    inside = (view.on_firmware(f"{folder}/{name}") or "").casefold()
    return inside in names or f"/{name}".casefold() in names


def machine_id(view: View) -> Iterator[Finding]:
    """PI205: systemd makes a node's own id at first boot, unless there is one."""
    for path in (MACHINE_ID, "/var/lib/dbus/machine-id"):
        seen = view.root.get(path)
        if seen is not None and seen.kind == "file" and _MACHINE_ID.match(view.text(path)):
            yield Finding("PI205", path, "it holds an id, which all nodes would share")


def _activated(path: str, tokens: list[str], root: Partition | None) -> Iterator[Finding]:
    """Dracut activates the volumes that are named, and all only where none is (dracut.cmdline(7))."""
    volumes = [t.removeprefix("rd.lvm.lv=") for t in tokens if t.startswith("rd.lvm.lv=")]
    if root is not None and root.volume and volumes and root.volume not in volumes:
        words = f"no `rd.lvm.lv=` activates `{root.volume}`, in which the root file system is"
        yield Finding("PI202", path, words)


def growth(view: View) -> Iterator[Finding]:
    """PI206: nothing lies behind the root, and what grows it is there, where that is not cloud-init alone."""
    if _IMAGE_ID in view.root and not view.resolves(_GROWPART):
        words = "it is not there, and an initramfs that is made anew does not grow the root"
        yield Finding("PI206", _GROWPART, words)
    starts = {partition.number: partition.start for partition in view.table.partitions}
    root = next((p for p in view.table.holders if p.number == view.place.root), None)
    end = view.table.outside(root).start if root is not None else view.table.size
    for number, start in starts.items():
        if start > end:
            words = f"partition {number} lies behind the root file system, which cannot grow"
            yield Finding("PI206", "", words)
    if (
        root is not None
        and root.volume
        and f"{ADMIN}/multi-user.target.wants/{UNIT}" not in view.root
    ):
        words = f"it is not enabled, and nothing else grows the volume `{root.volume}`"
        yield Finding("PI206", f"{ADMIN}/{UNIT}", words)
    if f"{VENDOR}/{_GROWS}" not in view.root:
        return
    unit = any(p.endswith(f".wants/{_GROWS}") for p in view.root if p.startswith(f"{ADMIN}/"))
    word = "resize" in view.tokens
    if unit and not word:
        yield Finding("PI206", view.cmdline, f"`resize` is gone, and `{_GROWS}` is still enabled")
    if unit and view.text(MACHINE_ID).strip() != "uninitialized":
        yield Finding("PI206", MACHINE_ID, f"it is not `uninitialized`, so `{_GROWS}` never runs")


def merged_usr(view: View) -> Iterator[Finding]:
    """PI222: a directory in place of one of these links takes the C library away."""
    kinds = {path: view.root[path].kind for path in _MERGED if path in view.root}
    if "link" in kinds.values():
        for path, kind in kinds.items():
            if kind != "link":
                yield Finding("PI222", path, f"it is a {kind}, not a link into /usr")


def target(view: View) -> Iterator[Finding]:
    """PI224: the target to boot into leads to a unit."""
    path = next(
        (p for p in (f"{ADMIN}/default.target", f"{VENDOR}/default.target") if p in view.root), None
    )
    if path is None:
        yield Finding("PI224", f"{VENDOR}/default.target", "there is none to boot into")
    elif not view.read(path) and not view.resolves(path):
        yield Finding("PI224", path, f"it leads to `{view.root[path].target}`, which is not there")


def future(view: View) -> Iterator[Finding]:
    """PI225: systemd and chronyd take the times of some files for times that have been; make(1) those of all."""
    latest = time.time() + _DAY
    late = {path: seen.mtime for path, seen in view.root.items() if seen.mtime > latest}
    for path in late if len(late) <= _MOST else sorted(late.keys() & set(_CLOCKS)):
        date = time.strftime("%Y-%m-%d", time.gmtime(late[path]))
        words = ", to which the clock would go" if path in _CLOCKS else ""
        yield Finding("PI225", path, f"it was written on {date}, which is to come{words}")
    if len(late) > _MOST:
        words = f"{len(late)} files are from the future: is the clock of this machine behind?"
        yield Finding("PI225", "", words)


RULES = (
    command_line,
    next_command_line,
    firmware_files,
    machine_id,
    growth,
    merged_usr,
    target,
    future,
)
