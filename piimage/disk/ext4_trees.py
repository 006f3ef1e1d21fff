"""Blocks of an inode whose checksums begin with its number and generation: extent trees and directories.

Layout: the kernel's Documentation/filesystems/ext4 (ifork.rst, directory.rst); `ext4_dx_csum` for indexed directories.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from piimage.disk.checksum import crc32c
from piimage.disk.ext4_inode import block_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.ext4_inode import Inodes
    from piimage.disk.inode import Inode

_EXTENTS, _INDEX = 0x80000, 0x1000
_TAIL = 12
#: Where `limit` and `count` of an index lie: behind the names `.` and `..` in the first block, in others at once.
_ROOT_COUNTS, _NODE_COUNTS = 32, 8


def checksummed_blocks(inodes: Inodes, inode: Inode, seed: int) -> Iterator[tuple[int, bytes]]:
    """`(byte offset in the file system, content)` of such blocks, with their checksums begun with `seed`."""
    size = inodes.superblock.block_size
    if inode.flags & _EXTENTS:
        for place in _nodes(inodes, block_map(inode)):
            raw = inodes.source.read(place, size)
            end = 12 + 12 * int.from_bytes(raw[4:6], "little")
            yield place, _with(raw, end, crc32c(seed, raw[:end]))
    if inode.kind != "dir":
        return
    for run in inodes.runs(inode):
        for number in range(run.count):
            place = (run.physical + number) * size
            raw = inodes.source.read(place, size)
            yield place, _directory(raw, seed, inode, first=run.logical + number == 0)


def _nodes(inodes: Inodes, raw: bytes) -> Iterator[int]:
    """Byte offsets of the blocks of an extent tree below the node `raw`."""
    _, entries, _, depth = struct.unpack_from("<HHHH", raw)
    if not depth:
        return
    size = inodes.superblock.block_size
    for at in range(12, 12 + entries * 12, 12):
        _, low, high = struct.unpack_from("<IIH", raw, at)
        place = (low | high << 32) * size
        yield place
        yield from _nodes(inodes, inodes.source.read(place, size))


def _directory(raw: bytes, seed: int, inode: Inode, *, first: bool) -> bytes:
    """A block of a directory: names with a tail, or an index, whose tail lies behind the room for its entries."""
    whole = int.from_bytes(raw[4:6], "little") in (len(raw), 0) and raw[:4] == bytes(4)
    if inode.flags & _INDEX and (first or whole):
        counts = _ROOT_COUNTS if first else _NODE_COUNTS
        limit, count = struct.unpack_from("<HH", raw, counts)
        tail = counts + limit * 8
        total = crc32c(seed, raw[: counts + count * 8])
        total = crc32c(total, raw[tail : tail + 4] + bytes(4))
        return _with(raw, tail + 4, total)
    return _with(raw, len(raw) - 4, crc32c(seed, raw[:-_TAIL]))


def _with(raw: bytes, at: int, total: int) -> bytes:
    return raw[:at] + total.to_bytes(4, "little") + raw[at + 4 :]
