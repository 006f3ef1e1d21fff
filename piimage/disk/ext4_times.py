"""Access times put back: what only was read is afterwards as if it had not been.

fuse2fs writes the time of every reading into the inode and knows no `noatime`. An inode in which nothing else
differs from the original gets the original's bytes, checksum included (layout: the kernel's
Documentation/filesystems/ext4/inodes.rst).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from piimage.disk.ext4_inode import Inodes
from piimage.disk.window import window
from piimage.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes of an inode that a reading changes: i_atime, i_checksum_lo, i_checksum_hi, i_atime_extra.
_OF_READING = (range(8, 12), range(124, 126), range(130, 132), range(140, 144))


def restore_access_times(image: Path, original: Path, start: int) -> int:
    """Give inodes of the file system at byte `start` of `image` the access times that they have in `original`.

    `image` began as a copy of `original`, and may have grown. Returns how many inodes were put back.
    """
    with window(image, start) as now, window(original, start) as then:
        changed, before = Inodes(now), Inodes(then)
        size, count = before.superblock.inode_size, before.superblock.inodes_per_group
        if (changed.superblock.inode_size, changed.superblock.inodes_per_group) != (size, count):
            raise ImageError(f"`{image.name}` is no copy of `{original.name}`")
        writes: list[tuple[int, bytes]] = []
        for old, new in zip(before.groups, changed.groups, strict=False):
            at = new.inode_table * changed.superblock.block_size
            mine = now.read(at, size * count)
            theirs = then.read(old.inode_table * before.superblock.block_size, size * count)
            if mine != theirs:
                writes += [
                    (start + at + i, theirs[i : i + size]) for i in _read_only(mine, theirs, size)
                ]
    descriptor = os.open(image, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for place, data in writes:
            os.pwrite(descriptor, data, place)
    finally:
        os.close(descriptor)
    return len(writes)


def _read_only(mine: bytes, theirs: bytes, size: int) -> list[int]:
    """Offsets of inodes that differ in what a reading changes, and in nothing else."""
    found = []
    for at in range(0, len(mine), size):
        new, old = mine[at : at + size], theirs[at : at + size]
        if new != old and _without(new) == _without(old):
            found.append(at)
    return found


def _without(inode: bytes) -> bytes:
    kept = bytearray(inode)
    for places in _OF_READING:
        for place in places:
            if place < len(kept):
                kept[place] = 0
    return bytes(kept)
