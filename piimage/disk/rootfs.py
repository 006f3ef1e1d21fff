"""File systems that can hold a Linux: which one begins at a place in an image, opened by its own reader."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from piimage.disk import ext4, xfs
from piimage.disk.ext4 import Ext4
from piimage.disk.tree import DEFAULT_LIMIT
from piimage.disk.window import window
from piimage.disk.xfs import Xfs
from piimage.run import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from piimage.disk.slots import Patch
    from piimage.disk.tree import FileTree
    from piimage.disk.window import Image, Window
    from piimage.facts import FileFact, Partition

_XFS = b"XFSB"
#: As `Filesystem.type` has them.
EXT = ("ext2", "ext3", "ext4")
KINDS = (*EXT, "xfs")


def readable(partition: Partition) -> bool:
    """Whether what the partition holds can be opened here."""
    return _kind(partition) in KINDS


def tree(source: Window) -> FileTree:
    """The file system that begins where `source` begins; raises `ImageError` for any other."""
    return (
        Xfs(source)
        if source.size > len(_XFS) and source.read(0, len(_XFS)) == _XFS
        else Ext4(source)
    )


@contextmanager
def open_tree(
    image: Path | Image, offset: int, patches: Sequence[Patch] = ()
) -> Iterator[FileTree]:
    """Open the file system at byte `offset`, as `patches` would make it; raises `ImageError` if there is none."""
    with window(image, offset, patches) as source:
        yield tree(source)


def list_tree(
    image: Path | Image, offset: int, roots: Iterable[str], max_depth: int | None = None
) -> dict[str, FileFact]:
    """`FileTree.list_tree` of the file system at `offset`."""
    with open_tree(image, offset) as found:
        return found.list_tree(roots, max_depth)


def read_files(
    image: Path | Image, offset: int, paths: Iterable[str], *, limit: int = DEFAULT_LIMIT
) -> dict[str, bytes]:
    """`FileTree.read_files` of the file system at `offset`."""
    with open_tree(image, offset) as found:
        return found.read_files(paths, limit=limit)


def require_checker(partition: Partition) -> None:
    """Raise `MissingToolError` if what `check` calls is not there: before the work, not behind it."""
    require("xfs_repair" if _kind(partition) == "xfs" else "e2fsck")


def check(image: Path, partition: Partition) -> None:
    """Let the file system's own tool judge it; raises `ImageError` with its words unless it is clean."""
    if _kind(partition) == "xfs":
        xfs.check(image, partition.start, partition.size)
    else:
        ext4.check(image, partition.start)


def _kind(partition: Partition) -> str:
    return partition.filesystem.type if partition.filesystem else ""
