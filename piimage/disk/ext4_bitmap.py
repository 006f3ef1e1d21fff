"""Which blocks of an ext2/3/4 file system are in use: block bitmaps, and what they leave unsaid."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.disk.ext4_super import (
    GROUP_BLOCK_UNINIT,
    INCOMPAT_META_BG,
    RO_GDT_CSUM,
    RO_METADATA_CSUM,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.disk.ext4_super import Group, Superblock
    from piimage.disk.window import Window

_UNIFORM = re.compile(rb"\xff+|\x00+|[^\x00\xff]", re.DOTALL)


def used_in_turn(
    source: Window, superblock: Superblock, groups: Sequence[Group]
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """`(block, runs)`: with these runs and those before, all in use before that block is told; group by group.

    Each group's bitmap is read when it is its turn.
    """
    runs: list[tuple[int, int]] = [(0, superblock.first_block)]
    # With flex_bg a group's metadata may lie in any group, also in one without a bitmap.
    for group in groups:
        runs += [
            (group.block_bitmap, 1),
            (group.inode_bitmap, 1),
            (group.inode_table, superblock.inode_table_blocks),
        ]
    yield 0, runs
    trusts_flag = bool(superblock.ro_compat & (RO_GDT_CSUM | RO_METADATA_CSUM))
    for number, group in enumerate(groups):
        first = superblock.group_start(number)
        count = min(superblock.blocks_per_group, superblock.blocks - first)
        if trusts_flag and group.flags & GROUP_BLOCK_UNINIT:
            yield first + count, _backups(superblock, number, count)
        else:
            bitmap = source.read(group.block_bitmap * superblock.block_size, -(-count // 8))
            yield first + count, [(first + at, length) for at, length in _set_bits(bitmap, count)]


def _backups(superblock: Superblock, group: int, count: int) -> list[tuple[int, int]]:
    """Blocks in use in a group without bitmap: superblock and descriptor copies."""
    first, length = superblock.group_start(group), 0
    per_block = superblock.descriptors_per_block
    meta = superblock.incompat & INCOMPAT_META_BG and group // per_block >= superblock.first_meta_bg
    if superblock.has_backup(group):
        length = 1
        if not meta:
            length += -(-superblock.groups // per_block) + superblock.reserved_gdt
    if meta and group % per_block in (0, 1, per_block - 1):
        length += 1
    return [(first, min(length, count))]


def _set_bits(bitmap: bytes, count: int) -> Iterator[tuple[int, int]]:
    """Runs `(first, length)` of one bits among the first `count`, low bit first."""
    for match in _UNIFORM.finditer(bitmap):
        at, piece = match.start() * 8, match.group()
        if piece[0] == 0xFF:  # noqa: PLR2004 -- eight blocks in use
            yield at, min(len(piece) * 8, count - at)
        elif piece[0]:
            for bit in range(8):
                if piece[0] >> bit & 1 and at + bit < count:
                    yield at + bit, 1
