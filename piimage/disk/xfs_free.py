"""Which blocks of an XFS file system are in use: all but those in its trees of free space.

Each allocation group has such a tree. What it keeps in reserve for its own trees (AGFL) counts as in use. Layout: XFS
Algorithms & Data Structures, chapter "Allocation Groups".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from piimage.disk.checksum import holds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.window import Window
    from piimage.disk.xfs_super import Superblock
    from piimage.errors import ImageError

_MAGIC, _TREE_MAGIC = b"XAGF", b"AB3B"
_HEADER = 56
_MAX_DEPTH = 16


def used_in_turn(
    source: Window, superblock: Superblock
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """`(block, runs)`: with these runs and those before, all in use before that block is told; group by group.

    Each group's tree is read when it is its turn. Raises `ImageError` for a tree that is broken.
    """
    for group in range(superblock.groups):
        first, length = group * superblock.group_blocks, superblock.group_length(group)
        runs, at = [], 0
        for start, count in _free(source, superblock, group):
            if start > at:
                runs.append((first + at, start - at))
            at = start + count
        if at < length:
            runs.append((first + at, length - at))
        yield first + length, runs


def _free(source: Window, superblock: Superblock, group: int) -> Iterator[tuple[int, int]]:
    """Free runs of a group, ascending: first block in the group, count."""
    broken = superblock.damaged(f"the free space of group {group} contradicts itself")
    place = group * superblock.group_blocks * superblock.block_size + superblock.sector_size
    raw = source.read(place, superblock.sector_size)
    magic, version, number, length = struct.unpack_from(">4sIII", raw)
    if (
        (magic, version, number, length) != (_MAGIC, 1, group, superblock.group_length(group))
        or raw[64:80] != superblock.meta_uuid
        or not holds(raw, 216)
    ):
        raise broken
    root, depth, free = (int.from_bytes(raw[at : at + 4], "big") for at in (16, 28, 52))
    if not 0 < depth <= _MAX_DEPTH:
        raise broken
    tree = _Tree(source, superblock, group)
    end = total = 0
    for start, count in tree.records(root, depth - 1, first=True):
        # Runs that touch would be one; the first block has the group's own headers.
        if not end < start <= start + count - 1 < length:
            raise broken
        end, total = start + count, total + count
        yield start, count
    if total != free:
        raise broken


class _Tree:
    """The blocks of one group's tree of free space by place."""

    def __init__(self, source: Window, superblock: Superblock, group: int) -> None:
        self._source, self._superblock, self._group = source, superblock, group

    def records(self, block: int, level: int, *, first: bool = False) -> Iterator[tuple[int, int]]:
        """Records below a block; the caller stops when they go back, so none is visited for ever."""
        superblock, size = self._superblock, self._superblock.block_size
        if not 0 < block < superblock.group_length(self._group):
            raise self._broken()
        place = self._group * superblock.group_blocks + block
        raw = self._source.read(place * size, size)
        magic, height, count, address, uuid, owner = struct.unpack_from(">4sHH8xQ8x16sI", raw)
        expected = (_TREE_MAGIC, level, place * size // 512, superblock.meta_uuid, self._group)
        if (magic, height, address, uuid, owner) != expected or not holds(raw, 52):
            raise self._broken()
        # Empty is only the tree of a group without free space.
        room = (size - _HEADER) // (12 if level else 8)
        if count > room or (not count and (level or not first)):
            raise self._broken()
        if not level:
            yield from struct.iter_unpack(">II", raw[_HEADER : _HEADER + count * 8])
            return
        for child in struct.unpack_from(f">{count}I", raw, _HEADER + room * 8):
            yield from self.records(child, level - 1)

    def _broken(self) -> ImageError:
        return self._superblock.damaged(f"the tree of free space of group {self._group} is broken")
