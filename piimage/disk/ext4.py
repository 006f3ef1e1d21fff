"""Paths of an ext2/3/4 file system inside an image: listing, reading, where a file's bytes lie.

The image is untrusted: nothing is mounted, links are followed inside the image only and never above
its root, every size and reference is bounded, and what contradicts itself is an `ImageError`.
"""

from __future__ import annotations

import re
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.disk.ext4_bitmap import used_in_turn
from piimage.disk.ext4_inode import Inode, Inodes
from piimage.disk.window import joined, window
from piimage.errors import ImageError
from piimage.facts import FileFact
from piimage.run import failure, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from piimage.disk.window import Image, Window

_ROOT = 2
_MAX_HOPS = 40  # symbolic links on one path, as in the kernel
_MAX_DIRECTORY = 64 << 20
_MAX_ENTRIES = 2_000_000
_MAX_ANSWER = 1 << 30
_CHATTER = re.compile(r"Pass \d|\s*$|.*\*{5}|.*: \d+/\d+ files ")  # e2fsck(8) of any file system
_TAIL_TYPE = 0xDE  # the checksum record at the end of a directory block

#: Files over this size are left out by `read_files` unless it is told otherwise.
DEFAULT_LIMIT = 64 << 20


class Ext4:
    """An open file system; paths are absolute in it, names text with `surrogateescape`."""

    def __init__(self, source: Window) -> None:
        self.inodes = Inodes(source)
        self._directories: dict[int, dict[str, int]] = {}
        self._answered = 0

    @property
    def uuid(self) -> bytes:
        """The file system's UUID, 16 bytes."""
        return self.inodes.source.read(1024 + 104, 16)

    @property
    def free(self) -> int:
        """Bytes in blocks that nothing uses, those reserved for root included."""
        superblock = self.inodes.superblock
        return superblock.free_blocks * superblock.block_size

    def list_tree(self, roots: Iterable[str], max_depth: int | None = None) -> dict[str, FileFact]:
        """Everything at and below `roots`, at most `max_depth` levels below; without `content`.

        Parents of a root may be links, the root itself is not followed. Roots that do not exist are
        left out.
        """
        found: dict[str, FileFact] = {}
        for root in roots:
            for path, inode in self.walk(root, max_depth):
                found[path] = self._fact(inode)
                if len(found) > _MAX_ENTRIES:
                    raise self.inodes.damaged("it has too many names")
        return found

    def read_files(self, paths: Iterable[str], *, limit: int = DEFAULT_LIMIT) -> dict[str, bytes]:
        """Content by path; links are followed inside the image.

        Left out: what does not exist, is no regular file, or is larger than `limit` bytes.
        """
        found: dict[str, bytes] = {}
        for path in paths:
            number = self._resolve(path, follow=True)
            inode = self.inodes.inode(number) if number is not None else None
            if inode is None or inode.kind != "file" or inode.size > limit:
                continue
            self._answered += inode.size
            if self._answered > _MAX_ANSWER:
                raise ImageError(f"the files asked of `{self.inodes.source.name}` exceed 1 GiB")
            found[path] = self.inodes.content(inode)
        return found

    def size(self, path: str) -> int:
        """Bytes of the regular file at exactly `path` (no link followed at its end)."""
        return self._file(path).size

    def modified(self, path: str) -> int | None:
        """When `path` was last written, in epoch seconds; links are followed, None if absent."""
        number = self._resolve(path, follow=True)
        return self.inodes.inode(number).mtime if number is not None else None

    def extents(self, path: str) -> list[tuple[int, int, int]]:
        """`(file offset, image offset, length)` of all bytes of a regular file, in file order.

        Raises `ImageError` for a hole, an extent that is reserved but not written, a link, or a
        file that has other names (hard links).
        """
        inode = self._file(path)
        if inode.links != 1:
            raise ImageError(
                f"`{path}` has {inode.links} hard links, so it cannot be overwritten alone"
            )
        block, start = self.inodes.superblock.block_size, self.inodes.source.start
        found: list[tuple[int, int, int]] = []
        at = 0
        for piece in self.inodes.runs(inode):
            if piece.logical * block != at:
                break
            if not piece.written:
                raise ImageError(f"`{path}` has space that is reserved but not written")
            length = min(piece.count * block, inode.size - at)
            where = start + piece.physical * block
            if found and found[-1][1] + found[-1][2] == where:
                found[-1] = (found[-1][0], found[-1][1], found[-1][2] + length)
            else:
                found.append((at, where, length))
            at += length
        if at != inode.size:
            raise ImageError(f"`{path}` has a hole at byte {at}")
        return found

    def allocated(self) -> list[tuple[int, int]]:
        """`(image offset, length)` in bytes of all blocks in use, metadata included."""
        return joined([each for _, ranges in self.allocated_in_turn() for each in ranges])

    def allocated_in_turn(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """`(byte, ranges)` of the image: with these ranges and those before, all in use before that byte is told."""
        block, start = self.inodes.superblock.block_size, self.inodes.source.start
        for end, runs in used_in_turn(
            self.inodes.source, self.inodes.superblock, self.inodes.groups
        ):
            yield (
                start + end * block,
                [(start + first * block, count * block) for first, count in runs],
            )

    @property
    def used(self) -> int:
        """Bytes in use, by the superblock alone."""
        superblock = self.inodes.superblock
        return (superblock.blocks - superblock.free_blocks) * superblock.block_size

    def _file(self, path: str) -> Inode:
        number = self._resolve(path, follow=False)
        if number is None:
            raise ImageError(f"`{self.inodes.source.name}` has no `{path}`")
        inode = self.inodes.inode(number)
        if inode.kind != "file":
            raise ImageError(f"`{path}` in `{self.inodes.source.name}` is no regular file")
        return inode

    def walk(self, root: str = "/", max_depth: int | None = None) -> Iterator[tuple[str, Inode]]:
        """Every path at and below `root` with its inode, parents first; nothing where it is not there."""
        number = self._resolve(root, follow=False)
        seen: set[int] = set()
        todo = [] if number is None else [(_clean(root), number, 0)]
        while todo:
            path, number, level = todo.pop()
            inode = self.inodes.inode(number)
            yield path, inode
            if inode.kind != "dir" or (max_depth is not None and level >= max_depth):
                continue
            if number in seen:
                raise self.inodes.damaged(f"directory `{path}` contains itself")
            seen.add(number)
            prefix = path.rstrip("/") + "/"
            todo += [(prefix + n, child, level + 1) for n, child in self._names(inode).items()]

    def _fact(self, inode: Inode) -> FileFact:
        target = None
        if inode.kind == "link":
            target = self.inodes.link_target(inode).decode(errors="surrogateescape")
        return FileFact(
            kind=inode.kind,
            mode=stat.S_IMODE(inode.mode),
            uid=inode.uid,
            gid=inode.gid,
            target=target,
        )

    def _resolve(self, path: str, *, follow: bool) -> int | None:
        """Inode number at `path`, or None; a link at the end is followed only with `follow`."""
        todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
        trail, hops = [_ROOT], 0
        while todo:
            part = todo.pop()
            if part == "..":
                trail = trail[:-1] or [_ROOT]
                continue
            parent = self.inodes.inode(trail[-1])
            number = self._names(parent).get(part) if parent.kind == "dir" else None
            if number is None:
                return None
            inode = self.inodes.inode(number)
            if inode.kind != "link" or (not todo and not follow):
                trail.append(number)
                continue
            hops += 1
            if hops > _MAX_HOPS:
                return None
            target = self.inodes.link_target(inode).decode(errors="surrogateescape")
            trail = [_ROOT] if target.startswith("/") else trail
            todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
        return trail[-1]

    def _names(self, directory: Inode) -> dict[str, int]:
        """Names in a directory with their inode numbers, `.` and `..` left out."""
        known = self._directories.get(directory.number)
        if known is not None:
            return known
        if directory.size > _MAX_DIRECTORY:
            raise self.inodes.damaged(f"directory inode {directory.number} is too large")
        raw, block = self.inodes.content(directory), self.inodes.superblock.block_size
        names: dict[str, int] = {}
        for start in range(0, len(raw), block):
            for number, name in self._records(directory, raw[start : start + block]):
                text = name.decode(errors="surrogateescape")
                if "/" in text or "\0" in text or not text or text in names:
                    raise self.inodes.damaged(
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
                raise self.inodes.damaged(f"directory inode {directory.number} has a broken record")
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


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
