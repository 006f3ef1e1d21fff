"""XFS inside an image: its files, what is in use, and `xfs_repair` as its judge.

The image is untrusted, see `piimage.disk.tree`. Checked is of all metadata that is read the checksum, and that it is
what its place says: magic, address, owner and file system.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.disk.atomic import write_errors
from piimage.disk.checksum import holds
from piimage.disk.sparse import copy_part
from piimage.disk.tree import FileTree
from piimage.disk.window import gaps, joined, window
from piimage.disk.xfs_directory import names
from piimage.disk.xfs_free import used_in_turn
from piimage.disk.xfs_inode import LOCAL, Inodes, is_shared
from piimage.disk.xfs_super import settings
from piimage.disk.xfs_xattr import attributes
from piimage.errors import ImageError, UnsupportedError
from piimage.progress import Quiet
from piimage.run import failure, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from piimage.disk.inode import Inode, Run
    from piimage.disk.slots import Patch
    from piimage.disk.window import Image, Window

_TOO_OLD = "Using a more recent xfs_repair is recommended"
_MAX_TARGET = 1024  # XFS_SYMLINK_MAXLEN
_MAX_PIECE = 1 << 16  # of one, in bytes: a block, or two small ones
_TARGET_HEADER = struct.Struct(">4sII4x16sQQ8x")
_TARGET_MAGIC = b"XSLM"
#: What xfs_repair(8) says of any file system, and where images lie in files.
_CHATTER = re.compile(
    r"Phase |\s+- |No modify flag set|Cannot get host|Repair may fail if|the image and the host|\s*$"
)


class Xfs(FileTree):
    """An open XFS, version 5; `inodes` is what lies below its paths."""

    def __init__(self, source: Window) -> None:
        super().__init__(source)
        self.inodes = Inodes(source)
        self.root = self.inodes.superblock.root
        self.block_size = self.inodes.superblock.block_size
        self._directories: dict[int, dict[str, int]] = {}

    @property
    def uuid(self) -> bytes:
        """The file system's UUID, 16 bytes."""
        return self.inodes.superblock.uuid

    @property
    def free(self) -> int:
        """Bytes in blocks that nothing uses, by the superblock alone; with those in reserve for its own trees."""
        return self.inodes.superblock.free_blocks * self.block_size

    @property
    def used(self) -> int:
        """Bytes in use, by the superblock alone."""
        superblock = self.inodes.superblock
        return (superblock.blocks - superblock.free_blocks) * self.block_size

    def settings(self) -> str:
        """Size, geometry and features, as words; not what mounting changes."""
        return settings(self.source)

    def damaged(self, what: str) -> ImageError:
        """The error for a structure that contradicts itself."""
        return self.inodes.damaged(what)

    def inode(self, number: int) -> Inode:
        """Inode `number`."""
        return self.inodes.inode(number)

    def names(self, directory: Inode) -> dict[str, int]:
        """Names in a directory with their inode numbers, `.` and `..` left out."""
        known = self._directories.get(directory.number)
        if known is None:
            known = self._directories[directory.number] = names(self.inodes, directory)
        return known

    def runs(self, inode: Inode) -> list[Run]:
        """Where the content lies; space that is reserved behind the end of the file is left out."""
        found = self.inodes.fork_runs(inode, self.inodes.data_fork(inode))
        return [run for run in found if run.logical * self.block_size < inode.size]

    def extents(self, path: str) -> list[tuple[int, int, int]]:
        """See `FileTree.extents`; `ImageError` also for a file that shares blocks with others (reflink)."""
        if is_shared(self._file(path)):
            raise ImageError(f"`{path}` shares blocks, so it cannot be overwritten alone")
        return super().extents(path)

    def link_target(self, inode: Inode) -> bytes:
        """What a symbolic link holds."""
        if not 0 < inode.size <= _MAX_TARGET:
            raise self.damaged(f"the link in inode {inode.number} is too long")
        fork = self.inodes.data_fork(inode)
        target = fork.data[: inode.size] if fork.format == LOCAL else self._remote_target(inode)
        if len(target) != inode.size:
            raise self.damaged(f"the link in inode {inode.number} is too short")
        return target

    def _remote_target(self, inode: Inode) -> bytes:
        """A target in blocks: each run of them has a header of its own."""
        target, uuid = b"", self.inodes.superblock.meta_uuid
        for piece in self.runs(inode):
            place, size = piece.physical * self.block_size, piece.count * self.block_size
            length = min(size - _TARGET_HEADER.size, inode.size - len(target))
            if length <= 0:
                break
            raw = self.source.read(place, size) if size <= _MAX_PIECE else bytes(self.block_size)
            expected = (_TARGET_MAGIC, len(target), length, uuid, inode.number, place // 512)
            if _TARGET_HEADER.unpack_from(raw) != expected or not holds(raw, 12):
                raise self.damaged(f"the link in inode {inode.number} has a broken block")
            target += raw[_TARGET_HEADER.size : _TARGET_HEADER.size + length]
        return target

    def device(self, inode: Inode) -> tuple[int, int]:
        """Major and minor number: 14 bits before 18."""
        number = int.from_bytes(self.inodes.data_fork(inode).data[:4], "big")
        return number >> 18, number & (1 << 18) - 1

    def attributes(self, inode: Inode) -> dict[str, bytes]:
        """Extended attributes by name."""
        return attributes(self.inodes, inode)

    def metadata(self, size: int) -> list[tuple[int, int]]:
        """`(image offset, length)` in bytes of all in use but the content of files, in `size` bytes."""
        start, end = self.source.start, self.source.start + size
        content = [
            (start + run.physical * self.block_size, run.count * self.block_size)
            for inode in {inode.number: inode for _, inode in self.walk()}.values()
            if inode.kind == "file"
            for run in self.runs(inode)
        ]
        return gaps(joined([*gaps(self.allocated(), start, end), *content]), start, end)

    def allocated_in_turn(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """`(byte, ranges)` of the image: with these ranges and those before, all in use before that byte is told."""
        block, start = self.block_size, self.source.start
        for end, runs in used_in_turn(self.source, self.inodes.superblock):
            yield (
                start + end * block,
                [(start + first * block, count * block) for first, count in runs],
            )


@contextmanager
def open_xfs(image: Path | Image, offset: int, patches: Sequence[Patch] = ()) -> Iterator[Xfs]:
    """Open the XFS at byte `offset`, as `patches` would make it; raises `ImageError` if there is none."""
    with window(image, offset, patches) as source:
        yield Xfs(source)


def check(image: Path, offset: int, size: int) -> None:
    """Let `xfs_repair -n` judge the file system in `size` bytes from `offset`; raises `ImageError` unless clean.

    It knows no offset, so it gets a copy, of metadata alone. Raises `WriteFailedError` when there is no room for that.
    """
    with open_xfs(image, offset) as tree:
        kept = tree.metadata(size)
    with tempfile.TemporaryDirectory(prefix="piimage-") as scratch:
        copy = Path(scratch, "image")
        _copy(image, offset, size, kept, copy)
        result = run(["xfs_repair", "-n", "-f", str(copy)], check=False)
    if _TOO_OLD in result.text + result.stderr.decode(errors="replace"):
        raise UnsupportedError(
            f"xfs_repair of this machine is too old for the xfs file system at byte {offset} of `{image.name}`",
            hint="a newer xfsprogs knows it: Debian 13 has 6.13",
        )
    if result.returncode != 0:
        first = f"the xfs file system at byte {offset} of `{image.name}` is not clean"
        lines = result.stderr.decode(errors="replace").splitlines()
        said = [x.strip() for x in lines if not _CHATTER.match(x)][:4]
        raise ImageError("\n    ".join([first, *(said or failure(result).message.splitlines())]))


def _copy(
    image: Path, offset: int, size: int, ranges: Iterable[tuple[int, int]], copy: Path
) -> None:
    """Those ranges of the image, at their places from byte `offset` on, with holes for all else."""
    with (
        image.open("rb") as source,
        write_errors(copy),
        copy.open("wb") as target,
        Quiet().step("") as task,
    ):
        end = min(offset + size, os.fstat(source.fileno()).st_size)
        target.truncate(end - offset)
        for start, length in ranges:
            copy_part(
                source.fileno(),
                target.fileno(),
                start=start,
                length=min(length, end - start),
                at=start - offset,
                task=task,
            )
