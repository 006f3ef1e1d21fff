"""Apply a Delta to an image: one appliance launch, one `tar_in` per file system, a checked shutdown."""

from __future__ import annotations

import io
import shlex
import tarfile
import tempfile
from typing import TYPE_CHECKING

from piimage.delta import Absent, Delta, Directory, Entry, File, Slot, Symlink, Tree
from piimage.disk.guestfs import Appliance
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from piimage.facts import Facts
    from piimage.progress import Progress

#: Part of every variant's id: raise it whenever the same Delta would give other bytes.
APPLY_VERSION = 1


def apply(image: Path, delta: Delta, facts: Facts, progress: Progress) -> None:
    """Write `delta` into the raw `image`, which must be a scratch copy of the base that `facts` were read from.

    Raises `ImageError` if the appliance refuses anything; the scratch copy is then worthless.
    """
    _check_parents(delta, facts)
    with Appliance(image, progress=progress) as appliance:
        with progress.step("mounting the image's file systems"):
            for mountpoint, number in sorted(facts.mounts.items()):
                filesystem = facts.table.partition(number).filesystem
                if filesystem is None:
                    raise ImageError(
                        f"partition {number} (`{mountpoint}`) holds no known file system"
                    )
                appliance.mount(number, mountpoint, filesystem.type)
        with progress.step("moving and removing files"):
            script = "\n".join(["set -e", *_commands(delta)])
            appliance.script(script)
        for mountpoint in sorted(facts.mounts):
            _send(appliance, mountpoint, delta, facts, progress)


def _send(
    appliance: Appliance, mountpoint: str, delta: Delta, facts: Facts, progress: Progress
) -> None:
    """One tar for what belongs to the file system at `mountpoint`."""
    entries = [(path, entry) for path, entry in delta if _home(path, facts) == mountpoint]
    members = list(_members(entries, mountpoint, facts))
    if not members:
        return
    with (
        progress.step(f"writing {len(members)} files to `{mountpoint}`"),
        tempfile.NamedTemporaryFile(suffix=".tar") as archive,
    ):
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info, content in members:
                tar.addfile(info, io.BytesIO(content))
        archive.flush()
        # SELinux labels travel as extended attributes; FAT has neither.
        appliance.call("tar_in", archive.name, mountpoint, xattrs=mountpoint == "/")


def _home(path: str, facts: Facts) -> str:
    """The mount point of the file system that holds `path`."""
    holders = [m for m in facts.mounts if path == m or _under(path, m)]
    return max(holders, key=len)


def _members(
    entries: Iterable[tuple[str, Entry]], mountpoint: str, facts: Facts
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Tar members relative to the mount point; parents that the image lacks come first, as root's 0755."""
    made = {path for path, entry in entries if isinstance(entry, Directory)}
    for path, entry in entries:
        for parent in _parents(path):
            if (
                parent not in made
                and not facts.has(parent)
                and parent != mountpoint
                and _home(parent, facts) == mountpoint
                and _under(parent, mountpoint)
            ):
                made.add(parent)
                yield _info(parent, mountpoint, Directory(), facts), b""
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


def _commands(delta: Delta) -> Iterator[str]:
    """Shell lines for the appliance: trees first, then removals, then paths that change their kind."""
    for path, entry in delta:
        if isinstance(entry, Tree):
            yield from _moving(path, entry)
    for path, entry in delta:
        place = shlex.quote(f"/sysroot{path}")
        is_directory = f"[ -d {place} ] && [ ! -L {place} ]"
        match entry:
            case Absent():
                yield f"rm -rf {place}"
            case File() | Slot() | Symlink():
                yield f"if {is_directory}; then rm -rf {place}; fi"
            case Directory():
                yield f"{is_directory} || rm -f {place}"
            case Tree():
                pass


def _moving(path: str, tree: Tree) -> Iterator[str]:
    """Move a tree, then give every inode with an old number the new one."""
    source, target = (shlex.quote(f"/sysroot{p}") for p in (tree.source, path))
    if tree.source != path:
        yield f"test ! -e {target}"
        yield f"mv {source} {target}"
    for flag, command, pairs in (("uid", "chown", tree.uid_map), ("gid", "chgrp", tree.gid_map)):
        for old, new in pairs:
            yield f"find /sysroot -xdev -{flag} {old} -exec {command} -h {new} {{}} +"


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
