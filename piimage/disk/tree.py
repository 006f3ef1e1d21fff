"""Paths of a file system inside an image: listing, reading, where a file's bytes lie; whatever kind it is of.

The image is untrusted: nothing is mounted, links are followed inside the image only and never above
its root, every size and reference is bounded, and what contradicts itself is an `ImageError`.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from piimage.disk.inode import gathered
from piimage.disk.window import joined
from piimage.errors import ImageError
from piimage.facts import FileFact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from piimage.disk.inode import Inode, Run
    from piimage.disk.window import Window

_MAX_HOPS = 40  # symbolic links on one path, as in the kernel
_MAX_ENTRIES = 2_000_000
_MAX_ANSWER = 1 << 30
_LARGEST = 1 << 37

#: Files over this size are left out by `read_files` unless it is told otherwise.
DEFAULT_LIMIT = 64 << 20


class FileTree(ABC):
    """An open file system; paths are absolute in it, names text with `surrogateescape`.

    A kind of file system says what its inodes hold; everything about paths is here.
    """

    #: The root directory's inode.
    root: int
    #: Bytes of the unit that `Run` counts in.
    block_size: int

    def __init__(self, source: Window) -> None:
        self.source = source
        self._answered = 0

    @property
    @abstractmethod
    def uuid(self) -> bytes:
        """The file system's UUID, 16 bytes."""

    @property
    @abstractmethod
    def free(self) -> int:
        """Bytes in blocks that nothing uses, those reserved for root included; by the superblock alone."""

    @property
    @abstractmethod
    def used(self) -> int:
        """Bytes in use, by the superblock alone."""

    @abstractmethod
    def settings(self) -> str:
        """What of the superblock is settled when the file system is made, as words: size, features and the like."""

    def complaints(self) -> Iterator[str]:
        """What the file system itself has on record of damage, beside what keeps it from being opened."""
        yield from ()

    @abstractmethod
    def damaged(self, what: str) -> ImageError:
        """The error for a structure that contradicts itself."""

    @abstractmethod
    def inode(self, number: int) -> Inode:
        """Inode `number`; raises `ImageError` if there is none or nothing uses it."""

    @abstractmethod
    def names(self, directory: Inode) -> dict[str, int]:
        """Names in a directory with their inode numbers, `.` and `..` left out."""

    @abstractmethod
    def runs(self, inode: Inode) -> list[Run]:
        """Where the content lies, in file order, holes left out; `ImageError` if that is broken."""

    @abstractmethod
    def link_target(self, inode: Inode) -> bytes:
        """What a symbolic link holds."""

    @abstractmethod
    def device(self, inode: Inode) -> tuple[int, int]:
        """Major and minor number of a character or block device."""

    @abstractmethod
    def attributes(self, inode: Inode) -> dict[str, bytes]:
        """Extended attributes by name (`security.selinux`); raises `ImageError` for what is broken."""

    @abstractmethod
    def allocated_in_turn(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """`(byte, ranges)` of the image: with these ranges and those before, all in use before that byte is told."""

    def content(self, inode: Inode) -> bytes:
        """The whole content, holes and reserved space as zeros; the caller has bounded its size."""
        return gathered(self.source, self.runs(inode), inode.size, self.block_size)

    def pieces(self, inode: Inode, most: int = 1 << 20) -> Iterator[bytes]:
        """The content in pieces of at most `most` bytes; holes and reserved space are zeros.

        Raises `ImageError` for a file over 128 GiB: nearly all of it would be holes, and take for ever.
        """
        if inode.size > _LARGEST:
            raise self.damaged(f"inode {inode.number} claims to hold {inode.size} bytes")
        block, at = self.block_size, 0
        for run in self.runs(inode):
            start, end = run.logical * block, min((run.logical + run.count) * block, inode.size)
            for here in range(at, start, most):
                yield bytes(min(most, start - here))
            for here in range(start, end, most):
                length = min(most, end - here)
                place = run.physical * block + here - start
                yield self.source.read(place, length) if run.written else bytes(length)
            at = end
        for here in range(at, inode.size, most):
            yield bytes(min(most, inode.size - here))

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
                    raise self.damaged("it has too many names")
        return found

    def read_files(self, paths: Iterable[str], *, limit: int = DEFAULT_LIMIT) -> dict[str, bytes]:
        """Content by path; links are followed inside the image.

        Left out: what does not exist, is no regular file, or is larger than `limit` bytes.
        """
        found: dict[str, bytes] = {}
        for path in paths:
            number = self._resolve(path, follow=True)
            inode = self.inode(number) if number is not None else None
            if inode is None or inode.kind != "file" or inode.size > limit:
                continue
            self._answered += inode.size
            if self._answered > _MAX_ANSWER:
                raise ImageError(f"the files asked of `{self.source.name}` exceed 1 GiB")
            found[path] = self.content(inode)
        return found

    def size(self, path: str) -> int:
        """Bytes of the regular file at exactly `path` (no link followed at its end)."""
        return self._file(path).size

    def modified(self, path: str) -> int | None:
        """When `path` was last written, in epoch seconds; links are followed, None if absent."""
        number = self._resolve(path, follow=True)
        return self.inode(number).mtime if number is not None else None

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
        block, start = self.block_size, self.source.start
        found: list[tuple[int, int, int]] = []
        at = 0
        for piece in self.runs(inode):
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

    def _file(self, path: str) -> Inode:
        number = self._resolve(path, follow=False)
        if number is None:
            raise ImageError(f"`{self.source.name}` has no `{path}`")
        inode = self.inode(number)
        if inode.kind != "file":
            raise ImageError(f"`{path}` in `{self.source.name}` is no regular file")
        return inode

    def walk(self, root: str = "/", max_depth: int | None = None) -> Iterator[tuple[str, Inode]]:
        """Every path at and below `root` with its inode, parents first; nothing where it is not there."""
        number = self._resolve(root, follow=False)
        seen: set[int] = set()
        todo = [] if number is None else [(_clean(root), number, 0)]
        while todo:
            path, number, level = todo.pop()
            inode = self.inode(number)
            yield path, inode
            if inode.kind != "dir" or (max_depth is not None and level >= max_depth):
                continue
            if number in seen:
                raise self.damaged(f"directory `{path}` contains itself")
            seen.add(number)
            prefix = path.rstrip("/") + "/"
            todo += [(prefix + n, child, level + 1) for n, child in self.names(inode).items()]

    def _fact(self, inode: Inode) -> FileFact:
        target = None
        if inode.kind == "link":
            target = self.link_target(inode).decode(errors="surrogateescape")
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
        trail, hops = [self.root], 0
        while todo:
            part = todo.pop()
            if part == "..":
                trail = trail[:-1] or [self.root]
                continue
            parent = self.inode(trail[-1])
            number = self.names(parent).get(part) if parent.kind == "dir" else None
            if number is None:
                return None
            inode = self.inode(number)
            if inode.kind != "link" or (not todo and not follow):
                trail.append(number)
                continue
            hops += 1
            if hops > _MAX_HOPS:
                return None
            target = self.link_target(inode).decode(errors="surrogateescape")
            trail = [self.root] if target.startswith("/") else trail
            todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
        return trail[-1]


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
