"""Apply a Delta to an image: one appliance launch, one `tar_in` per file system, a checked shutdown."""

from __future__ import annotations

import io
import shlex
import tarfile
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from piimage.delta import Absent, Delta, Directory, Entry, File, Slot, Symlink, Tree
from piimage.disk import ext4_settle, fat_settle, rootfs
from piimage.disk.guestfs import Appliance
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from piimage.facts import Facts
    from piimage.progress import Progress

#: Part of every variant's id: raise it whenever the same Delta would give other bytes.
APPLY_VERSION = 4
#: Where files come to lie must not depend on when the kernel finds time: blocks are given out when dirty pages are
#: written, and can be had again once their removal is committed. Both happen when we say so. (A file system without a
#: journal commits nothing, and refuses the option.)
_WHEN_TOLD = """\
mount -o remount,commit=3600 /sysroot || true
cd /proc/sys/vm
echo 0 >dirty_writeback_centisecs
echo 60 >dirty_background_ratio
echo 80 >dirty_ratio
"""
#: Linux takes 128 KiB in one argument (MAX_ARG_STRLEN).
_MAX_SCRIPT = 100_000
_HEAD = "set -e\n"
#: User and group numbers in no distribution's range (systemd's table ends at 0x7fffffff).
_NOBODYS = 0x7FFF_0000


def apply(image: Path, delta: Delta, facts: Facts, progress: Progress) -> None:
    """Write `delta` into the raw `image`, which must be a scratch copy of the base that `facts` were read from.

    Raises `ImageError` if the appliance refuses anything; the scratch copy is then worthless.
    """
    _check_parents(delta, facts)
    with _told_of_attributes(), Appliance(image, progress=progress) as appliance:
        with progress.step("mounting the image's file systems"):
            for mountpoint, number in sorted(facts.mounts.items()):
                appliance.mount(facts.table.partition(number), mountpoint)
            appliance.script(_WHEN_TOLD)
        with progress.step("moving and removing files"):
            for script in _scripts(_commands(delta)):
                appliance.script(script)
            appliance.call("sync")
        for mountpoint in sorted(facts.mounts):
            _send(appliance, mountpoint, delta, facts, progress)


@contextmanager
def _told_of_attributes() -> Iterator[None]:
    """To root of the appliance, nothing but an attribute of a file forbids a change."""
    try:
        yield
    except ImageError as error:
        if "Operation not permitted" in error.message:
            error.hint = (
                "a file or directory there is immutable or append-only: take that off in the image before it is"
                " imported (`guestfish -a IMAGE -i set-e2attrs PATH ia clear:true`, or chattr(1) on the board)"
            )
        raise


def settle(image: Path, original: Path, delta: Delta, facts: Facts) -> None:
    """Make `image`, to which `delta` was applied, what follows from `original` and `delta` alone.

    Clocks, random numbers and what passed through journals go; see the modules of `piimage.disk`.
    """
    when = facts.made or 0
    asked = (entry.mtime or 0 for _, entry in delta if isinstance(entry, File))
    latest = max(when, *asked, 0)
    for mountpoint, number in facts.mounts.items():
        partition = facts.table.partition(number)
        kind = partition.filesystem.type if partition.filesystem else ""
        if kind in rootfs.EXT:
            ext4_settle.settle(image, original, partition.start, when=when, latest=latest)
        elif kind == "vfat" and mountpoint == facts.firmware:
            fat_settle.settle(image, original, partition.start, when=when, latest=latest)


def _send(
    appliance: Appliance, mountpoint: str, delta: Delta, facts: Facts, progress: Progress
) -> None:
    """One tar for what belongs to the file system at `mountpoint`."""
    entries = [(path, entry) for path, entry in delta if _home(path, facts) == mountpoint]
    members = list(_members(entries, mountpoint, facts))
    if not members:
        return
    with (
        progress.step(f"writing {len(members)} file{'s' * (len(members) != 1)} to `{mountpoint}`"),
        tempfile.NamedTemporaryFile(suffix=".tar") as archive,
    ):
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info, content in members:
                tar.addfile(info, io.BytesIO(content))
        archive.flush()
        # SELinux labels travel as extended attributes; FAT has neither.
        filesystem = facts.table.partition(facts.mounts[mountpoint]).filesystem
        labels = filesystem is not None and filesystem.type != "vfat"
        appliance.call("tar_in", archive.name, mountpoint, xattrs=labels)


def _home(path: str, facts: Facts) -> str:
    """The mount point of the file system that holds `path`."""
    holders = [m for m in facts.mounts if path == m or _under(path, m)]
    return max(holders, key=len)


def _members(
    entries: Iterable[tuple[str, Entry]], mountpoint: str, facts: Facts
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Tar members relative to the mount point. Parents that the image lacks are tar's to make, as root's 0755."""
    for path, entry in entries:
        match entry:
            case File():
                yield _info(path, mountpoint, entry, facts), entry.content
            case Slot():
                yield _info(path, mountpoint, entry, facts), b"\n" * entry.size
            case Directory() | Symlink():
                yield _info(path, mountpoint, entry, facts), b""
            case Absent() | Tree():
                pass


def _info(path: str, mountpoint: str, entry: Entry, facts: Facts) -> tarfile.TarInfo:
    """The tar header of one entry."""
    info = tarfile.TarInfo("." + (path if mountpoint == "/" else path[len(mountpoint) :]))
    assert not isinstance(entry, Absent | Tree)  # noqa: S101 -- _members never sends them
    info.mtime = (entry.mtime if isinstance(entry, File) else None) or facts.made or 0
    info.uid, info.gid = entry.uid, entry.gid
    match entry:
        case File():
            info.mode, info.size = entry.mode, len(entry.content)
        case Slot():
            info.mode, info.size = entry.mode, entry.size
        case Directory():
            info.mode, info.type = entry.mode, tarfile.DIRTYPE
        case Symlink():
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
    if entry.label is not None:
        info.pax_headers = {"SCHILY.xattr.security.selinux": entry.label}
    return info


def _scripts(lines: Iterable[str]) -> Iterator[str]:
    """The lines in as many scripts as it takes: the appliance hands each to its shell as one argument."""
    script = _HEAD
    for line in lines:
        if len(script.encode()) + len(line.encode()) > _MAX_SCRIPT:
            yield script
            script = _HEAD
        script += line + "\n"
    yield script


def _commands(delta: Delta) -> Iterator[str]:
    """Shell lines for the appliance: trees first, then removals, then paths that change their kind."""
    trees = [(path, entry) for path, entry in delta if isinstance(entry, Tree)]
    for path, tree in trees:
        yield from _moving(path, tree)
    for flag, command, pairs in (
        ("uid", "chown", [pair for _, tree in trees for pair in tree.uid_map]),
        ("gid", "chgrp", [pair for _, tree in trees for pair in tree.gid_map]),
    ):
        for old, new in _steps(pairs):
            yield f"find /sysroot -xdev -{flag} {old} -exec {command} -h {new} {{}} +"
    yield from _lists([pair for _, tree in trees for pair in tree.uid_map], "user")
    yield from _lists([pair for _, tree in trees for pair in tree.gid_map], "group")
    for path, entry in delta:
        place = shlex.quote(f"/sysroot{path}")
        is_directory = f"[ -d {place} ] && [ ! -L {place} ]"
        match entry:
            case Absent():
                yield f"rm -rf {place}"
            case File() | Slot() | Symlink():
                yield f"if {is_directory}; then rm -rf {place}; fi"
            case Directory():
                yield f"{{ {is_directory}; }} || rm -f {place}"
            case Tree():
                pass


def _lists(pairs: list[tuple[int, int]], kind: str) -> Iterator[str]:
    """The same in access control lists, which name users and groups by number (acl(5)): chown(1) leaves them alone.

    Of files with more than the three usual entries alone, `getfacl -s`; `-P` follows no link.
    """
    edits = "".join(
        f" -e 's/^(default:)?{kind}:{old}:/\\1{kind}:{new}:/'" for old, new in _steps(pairs)
    )
    if edits:
        listed = "cd /sysroot && getfacl -R -P -s -n -p ."
        yield f"( {listed} | sed -E{edits} | setfacl --restore=- )"


def _moving(path: str, tree: Tree) -> Iterator[str]:
    """Move a tree, onto nothing or onto an empty directory."""
    if tree.source == path:
        return
    source, target = (shlex.quote(f"/sysroot{p}") for p in (tree.source, path))
    message = shlex.quote(f"{path} is there already and not empty")
    yield f"mkdir -p {shlex.quote('/sysroot' + path.rsplit('/', 1)[0])}"
    yield f"if [ -d {target} ]; then rmdir {target} || true; fi"
    yield f"if [ -e {target} ] || [ -L {target} ]; then echo {message} >&2; exit 1; fi"
    yield f"mv {source} {target}"


def _steps(pairs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """One change of numbers as a sequence: through numbers that nobody has where it is a swap or a chain."""
    pairs = list(dict.fromkeys(pairs))
    if not {old for old, _ in pairs} & {new for _, new in pairs}:
        yield from pairs
        return
    for at, (old, _) in enumerate(pairs):
        yield old, _NOBODYS + at
    for at, (_, new) in enumerate(pairs):
        yield _NOBODYS + at, new


def _check_parents(delta: Delta, facts: Facts) -> None:
    """No entry may be written through a symbolic link of the image: tar would follow it out of the guest's tree."""
    for path, _ in delta:
        for parent in _parents(path):
            fact = facts.files.get(parent)
            if fact is not None and fact.kind != "dir" and parent not in delta.entries:
                raise ImageError(
                    f"`{path}` cannot be written: in the image `{parent}` is a {fact.kind}, not a directory"
                )


def _parents(path: str) -> list[str]:
    """The directories above `path`, outermost first, without the root."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]


def _under(path: str, mountpoint: str) -> bool:
    return mountpoint == "/" or path.startswith(f"{mountpoint}/")
