"""What the kernel adds of its own when it writes to an ext4 file system, taken away again.

The same files written twice into copies of one image give two images: the clock is in every inode and in the
superblock, a random number in every new inode, and the journal keeps what went through it. `settle` gives all of it
values that follow from what was written. Layout: the kernel's Documentation/filesystems/ext4 (super.rst, inodes.rst,
directory.rst, checksums.rst, journal.rst).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.disk.checksum import crc32c
from piimage.disk.ext4 import Ext4
from piimage.disk.ext4_inode import Inodes
from piimage.disk.ext4_super import RO_METADATA_CSUM, SUPERBLOCK_OFFSET
from piimage.disk.ext4_trees import checksummed_blocks
from piimage.disk.sparse import data_ranges
from piimage.disk.window import gaps, window
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.disk.window import Window

_CSUM_SEED = 0x2000
#: Of the superblock: times of mount, write and check, mounts, where it was mounted, KiB written, and high time bits.
_OF_MOUNTING = ((44, 48), (48, 52), (52, 54), (64, 68), (136, 200), (376, 384), (628, 632))
_JOURNAL_INODE, _SUPER_CHECKSUM = 224, 1020
#: Of an inode: seconds, and where the nanoseconds and two more bits of the seconds lie, behind byte 128.
_CHANGED, _MODIFIED, _ACCESSED, _BORN = (12, 132), (16, 136), (8, 140), (144, 148)
_GENERATION, _CHECKSUM_LOW, _CHECKSUM_HIGH, _EXTRA = 100, 124, 130, 128
_OLD_INODE = 128
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Pair:
    """The file system as it was written to, and as it was before."""

    now: Inodes
    then: Inodes
    #: Seconds since the epoch: what a time of the moment becomes, and the latest time that was asked for.
    when: int
    latest: int

    @property
    def seed(self) -> int | None:
        """What checksums of metadata begin with; None where there are none."""
        superblock, source = self.now.superblock, self.now.source
        if not superblock.ro_compat & RO_METADATA_CSUM:
            return None
        if superblock.incompat & _CSUM_SEED:
            return int.from_bytes(source.read(SUPERBLOCK_OFFSET + 624, 4), "little")
        return crc32c(0xFFFFFFFF, source.read(SUPERBLOCK_OFFSET + 104, 16))


def settle(image: Path, original: Path, start: int, *, when: int, latest: int) -> None:
    """Make the file system at byte `start` of `image`, once a copy of `original`, what follows from its files alone.

    Times of the moment become `when`: those of inodes that have changed, but for modification times up to `latest`,
    which somebody asked for. New inodes have generation 0. Journal, what mounting leaves in the superblock, and blocks
    that nothing uses are as in `original`. Both file systems are clean and unmounted.
    """
    with window(image, start) as new, window(original, start) as old:
        pair = _Pair(Inodes(new), Inodes(old), when, latest)
        if _layout(pair.now) != _layout(pair.then):
            raise ImageError(f"`{image.name}` is no copy of `{original.name}`")
        writes = [*_inodes(pair), *_journal(pair), *_superblock(pair)]
        free = list(_free(pair, image))
    descriptor = os.open(image, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for place, data in (*writes, *free):
            os.pwrite(descriptor, data, start + place)
    finally:
        os.close(descriptor)


def _layout(inodes: Inodes) -> tuple[int, ...]:
    superblock = inodes.superblock
    return (
        superblock.block_size,
        superblock.blocks,
        superblock.inode_size,
        superblock.inodes_per_group,
    )


def _inodes(pair: _Pair) -> Iterator[tuple[int, bytes]]:
    """Inodes that have changed, and blocks whose checksums follow from the generation of theirs."""
    superblock, seed = pair.now.superblock, pair.seed
    size, count = superblock.inode_size, superblock.inodes_per_group
    for group, (mine, theirs) in enumerate(zip(pair.now.groups, pair.then.groups, strict=True)):
        at, was = (g.inode_table * superblock.block_size for g in (mine, theirs))
        for here in range(0, size * count, superblock.block_size):
            length = min(superblock.block_size, size * count - here)
            new = pair.now.source.read(at + here, length)
            old = pair.then.source.read(was + here, length)
            if new == old:
                continue
            for inside in range(0, length, size):
                raw, before = new[inside : inside + size], old[inside : inside + size]
                if raw == before:
                    continue
                number = group * count + (here + inside) // size + 1
                settled = _inode(pair, raw, before)
                if seed is not None and any(settled):
                    settled = _summed(settled, _own_seed(seed, number, settled))
                    if settled[_GENERATION : _GENERATION + 4] != raw[_GENERATION : _GENERATION + 4]:
                        inode = pair.now.inode(number)
                        own = _own_seed(seed, number, settled)
                        yield from checksummed_blocks(pair.now, inode, own)
                yield at + here + inside, bytes(settled)


def _inode(pair: _Pair, raw: bytes, before: bytes) -> bytearray:
    """An inode that has changed; one that nothing uses any more is empty, as those are that never were used."""
    if raw[26:28] == b"\0\0":
        return bytearray(len(raw))
    settled = bytearray(raw)
    new = before[26:28] == b"\0\0" or before[_GENERATION:][:4] != raw[_GENERATION:][:4]
    if new:
        settled[_GENERATION : _GENERATION + 4] = bytes(4)
    _set_time(settled, _CHANGED, pair.when)
    if new or _time(raw, _ACCESSED) != _time(before, _ACCESSED):
        _set_time(settled, _ACCESSED, pair.when)
    if _has_extra(raw, _BORN[1]) and (new or _time(raw, _BORN) != _time(before, _BORN)):
        _set_time(settled, _BORN, pair.when)
    modified = _time(raw, _MODIFIED)
    if modified[0] > pair.latest and (new or modified != _time(before, _MODIFIED)):
        _set_time(settled, _MODIFIED, pair.when)
    return settled


def _has_extra(raw: bytes | bytearray, place: int) -> bool:
    """Whether the inode says something at byte `place` behind its first 128."""
    return len(raw) > _OLD_INODE and place + 4 <= _OLD_INODE + int.from_bytes(
        raw[_EXTRA : _EXTRA + 2], "little"
    )


def _time(raw: bytes, place: tuple[int, int]) -> tuple[int, int]:
    """Seconds and nanoseconds."""
    low, extra = place
    seconds = int.from_bytes(raw[low : low + 4], "little", signed=low != _BORN[0])
    if not _has_extra(raw, extra):
        return seconds, 0
    more = int.from_bytes(raw[extra : extra + 4], "little")
    return seconds + ((more & 3) << 32), more >> 2


def _set_time(raw: bytearray, place: tuple[int, int], when: int) -> None:
    low, extra = place
    raw[low : low + 4] = (when & 0xFFFFFFFF).to_bytes(4, "little")
    if _has_extra(raw, extra):
        signed = int.from_bytes(raw[low : low + 4], "little", signed=True)
        raw[extra : extra + 4] = ((when - signed) >> 32 & 3).to_bytes(4, "little")


def _own_seed(seed: int, number: int, raw: bytearray) -> int:
    """What the checksums of an inode and of its blocks begin with."""
    own = crc32c(seed, number.to_bytes(4, "little"))
    return crc32c(own, raw[_GENERATION : _GENERATION + 4])


def _summed(raw: bytearray, own: int) -> bytearray:
    """The inode with its checksum."""
    wide = _has_extra(raw, _CHECKSUM_HIGH - 2)
    raw[_CHECKSUM_LOW : _CHECKSUM_LOW + 2] = bytes(2)
    if wide:
        raw[_CHECKSUM_HIGH : _CHECKSUM_HIGH + 2] = bytes(2)
    total = crc32c(own, raw)
    raw[_CHECKSUM_LOW : _CHECKSUM_LOW + 2] = (total & 0xFFFF).to_bytes(2, "little")
    if wide:
        raw[_CHECKSUM_HIGH : _CHECKSUM_HIGH + 2] = (total >> 16).to_bytes(2, "little")
    return raw


def _journal(pair: _Pair) -> Iterator[tuple[int, bytes]]:
    """The journal as it was: both are empty, and what lies in one that is empty means nothing."""
    number = int.from_bytes(pair.now.source.read(SUPERBLOCK_OFFSET + _JOURNAL_INODE, 4), "little")
    if not number:
        return
    block = pair.now.superblock.block_size
    runs = pair.now.runs(pair.now.inode(number))
    if runs != pair.then.runs(pair.then.inode(number)) or not runs:
        return
    for inodes in (pair.now, pair.then):
        head = inodes.source.read(runs[0].physical * block, 32)
        if head[28:32] != b"\0\0\0\0":
            raise inodes.damaged("its journal holds something still")
    for run in runs:
        yield from _differing(
            pair.now.source, pair.then.source, run.physical * block, run.count * block, block
        )


def _superblock(pair: _Pair) -> Iterator[tuple[int, bytes]]:
    raw = bytearray(pair.now.source.read(SUPERBLOCK_OFFSET, 1024))
    before = pair.then.source.read(SUPERBLOCK_OFFSET, 1024)
    for first, end in _OF_MOUNTING:
        raw[first:end] = before[first:end]
    if pair.seed is not None:
        total = crc32c(0xFFFFFFFF, raw[:_SUPER_CHECKSUM])
        raw[_SUPER_CHECKSUM:] = total.to_bytes(4, "little")
    yield SUPERBLOCK_OFFSET, bytes(raw)


def _free(pair: _Pair, image: Path) -> Iterator[tuple[int, bytes]]:
    """Blocks that were written and are free again."""
    source, block = pair.now.source, pair.now.superblock.block_size
    end = pair.now.superblock.blocks * block
    used = [(at - source.start, length) for at, length in Ext4(source).allocated()]
    descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for first, length in gaps(used, 0, end):
            begin = source.start + first
            for there, size in data_ranges(descriptor, begin, begin + length):
                yield from _differing(source, pair.then.source, there - source.start, size, block)
    finally:
        os.close(descriptor)


def _differing(
    new: Window, old: Window, start: int, length: int, block: int
) -> Iterator[tuple[int, bytes]]:
    """What `old` has where `new` differs, in blocks."""
    for at in range(start, start + length, _CHUNK):
        size = min(_CHUNK, start + length - at)
        mine, theirs = new.read(at, size), old.read(at, size)
        if mine == theirs:
            continue
        for here in range(0, size, block):
            if mine[here : here + block] != theirs[here : here + block]:
                yield at + here, theirs[here : here + block]
