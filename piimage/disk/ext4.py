"""ext2/3/4 inside an image: its directories, what is in use, and `e2fsck` as its judge.

The image is untrusted, see `piimage.disk.tree`.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.disk.ext4_bitmap import used_in_turn
from piimage.disk.ext4_inode import Inodes, block_map
from piimage.disk.ext4_super import damaged_backups, settings
from piimage.disk.ext4_xattr import attributes
from piimage.disk.tree import DEFAULT_LIMIT, FileTree
from piimage.disk.window import window
from piimage.errors import ImageError
from piimage.run import failure, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from piimage.disk.inode import Inode, Run
    from piimage.disk.window import Image, Window
    from piimage.facts import FileFact

_ROOT = 2
#: Of the superblock: s_state and s_error_count.
_STATE, _ERRORS, _CLEAN = 1024 + 58, 1024 + 0x194, 1
_MAX_DIRECTORY = 64 << 20
_CHATTER = re.compile(r"Pass \d|\s*$|.*\*{5}|.*: \d+/\d+ files ")  # e2fsck(8) of any file system
_TAIL_TYPE = 0xDE  # the checksum record at the end of a directory block


class Ext4(FileTree):
    """An open ext2/3/4; `inodes` is what lies below its paths."""

    def __init__(self, source: Window) -> None:
        super().__init__(source)
        self.inodes = Inodes(source)
        self.root = _ROOT
        self.block_size = self.inodes.superblock.block_size
        self._directories: dict[int, dict[str, int]] = {}

    @property
    def uuid(self) -> bytes:
        """The file system's UUID, 16 bytes."""
        return self.source.read(1024 + 104, 16)

    @property
    def free(self) -> int:
        """Bytes in blocks that nothing uses, by the superblock alone."""
        return self.inodes.superblock.free_blocks * self.block_size

    @property
    def used(self) -> int:
        """Bytes in use, by the superblock alone."""
        superblock = self.inodes.superblock
        return (superblock.blocks - superblock.free_blocks) * self.block_size

    def settings(self) -> str:
        """Size, features, behaviour on errors and default mount options, as words; not what mounting changes."""
        return settings(self.source)

    def complaints(self) -> Iterator[str]:
        """Broken copies of the superblock, and errors that Linux has recorded."""
        for group in damaged_backups(self.source, self.inodes.superblock):
            yield f"the copy of its superblock in block group {group} is damaged"
        state = int.from_bytes(self.source.read(_STATE, 2), "little")
        errors = int.from_bytes(self.source.read(_ERRORS, 4), "little")
        if state != _CLEAN or errors:
            yield f"it is marked as not clean (state {state}, {errors} errors)"

    def damaged(self, what: str) -> ImageError:
        """The error for a structure that contradicts itself."""
        return self.inodes.damaged(what)

    def inode(self, number: int) -> Inode:
        """Inode `number`."""
        return self.inodes.inode(number)

    def runs(self, inode: Inode) -> list[Run]:
        """Where the content lies."""
        return self.inodes.runs(inode)

    def link_target(self, inode: Inode) -> bytes:
        """What a symbolic link holds."""
        return self.inodes.link_target(inode)

    def device(self, inode: Inode) -> tuple[int, int]:
        """Major and minor number, by the kernel's old encoding or its new one."""
        old, new = (int.from_bytes(block_map(inode)[at : at + 4], "little") for at in (0, 4))
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00

    def attributes(self, inode: Inode) -> dict[str, bytes]:
        """Extended attributes by name."""
        return attributes(self.inodes, inode)

    def allocated_in_turn(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """`(byte, ranges)` of the image: with these ranges and those before, all in use before that byte is told."""
        block, start = self.block_size, self.source.start
        for end, runs in used_in_turn(self.source, self.inodes.superblock, self.inodes.groups):
            yield (
                start + end * block,
                [(start + first * block, count * block) for first, count in runs],
            )

    def names(self, directory: Inode) -> dict[str, int]:
        """Names in a directory with their inode numbers, `.` and `..` left out."""
        known = self._directories.get(directory.number)
        if known is not None:
            return known
        if directory.size > _MAX_DIRECTORY:
            raise self.damaged(f"directory inode {directory.number} is too large")
        raw, block = self.content(directory), self.block_size
        names: dict[str, int] = {}
        for start in range(0, len(raw), block):
            for number, name in self._records(directory, raw[start : start + block]):
                text = name.decode(errors="surrogateescape")
                if "/" in text or "\0" in text or not text or text in names:
                    raise self.damaged(
                        f"directory inode {directory.number} holds the name {text!r}"
                    )
                if text not in (".", ".."):
                    names[text] = number
        self._directories[directory.number] = names
        return names

    def _records(self, directory: Inode, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Live records of a directory block; index blocks look empty, on purpose of the format."""
        at = 0
        while at < len(block):
            number = int.from_bytes(block[at : at + 4], "little")
            length = int.from_bytes(block[at + 4 : at + 6], "little")
            size = block[at + 6] if at + 8 <= len(block) else 0
            length = len(block) if length in (0, 0xFFFF) and len(block) == 1 << 16 else length
            if length < 8 or length % 4 or at + length > len(block) or size + 8 > length:  # noqa: PLR2004 -- header size
                raise self.damaged(f"directory inode {directory.number} has a broken record")
            if number and block[at + 7] != _TAIL_TYPE:
                yield number, block[at + 8 : at + 8 + size]
            at += length


@contextmanager
def open_ext4(image: Path | Image, offset: int) -> Iterator[Ext4]:
    """Open the ext2/3/4 file system at byte `offset`; raises `ImageError` if there is none."""
    with window(image, offset) as source:
        yield Ext4(source)


def list_tree(
    image: Path, offset: int, roots: Iterable[str], max_depth: int | None = None
) -> dict[str, FileFact]:
    """`Ext4.list_tree` of the file system at `offset`."""
    with open_ext4(image, offset) as ext4:
        return ext4.list_tree(roots, max_depth)


def read_files(
    image: Path, offset: int, paths: Iterable[str], *, limit: int = DEFAULT_LIMIT
) -> dict[str, bytes]:
    """`Ext4.read_files` of the file system at `offset`."""
    with open_ext4(image, offset) as ext4:
        return ext4.read_files(paths, limit=limit)


def extents(image: Path, offset: int, path: str) -> list[tuple[int, int, int]]:
    """`Ext4.extents` of the file system at `offset`."""
    with open_ext4(image, offset) as ext4:
        return ext4.extents(path)


def allocated(image: Path | Image, offset: int) -> list[tuple[int, int]]:
    """`Ext4.allocated` of the file system at `offset`."""
    with open_ext4(image, offset) as ext4:
        return ext4.allocated()


def check(image: Path, offset: int) -> None:
    """Let `e2fsck -fn` judge the file system; raises `ImageError` with its words unless clean."""
    with tempfile.TemporaryDirectory(prefix="piimage-") as scratch:
        # e2fsprogs reads options after a `?`, which the name of the user's file may hold too.
        link = Path(scratch, "image")
        link.symlink_to(image.absolute())
        result = run(["e2fsck", "-fn", f"{link}?offset={offset}"], check=False)
    if result.returncode != 0:
        first = f"the ext4 file system at byte {offset} of `{image.name}` is not clean"
        said = [x.strip() for x in result.text.splitlines() if not _CHATTER.match(x)][:4]
        raise ImageError("\n    ".join([first, *(said or failure(result).message.splitlines())]))
