"""The ext2/3/4 superblock and group descriptors, read straight from an image.

Plain Python rather than debugfs: names with newlines or slashes cannot forge a listing, extents and
bitmaps come from the same reader, and all of /etc costs milliseconds. Layout: the kernel's
Documentation/filesystems/ext4 (super.rst, group_descr.rst). Tests compare with dumpe2fs and
debugfs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.window import Window

SUPERBLOCK_OFFSET = 1024
MAGIC = 0xEF53

COMPAT_SPARSE_SUPER2 = 0x200
INCOMPAT_RECOVER = 0x4
INCOMPAT_META_BG = 0x10
INCOMPAT_64BIT = 0x80
RO_SPARSE_SUPER = 0x1
RO_GDT_CSUM = 0x10
RO_METADATA_CSUM = 0x400
GROUP_BLOCK_UNINIT = 0x2

#: Incompatible features that change nothing in what this reader does: filetype, recover (refused
#: apart), meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, large_dir, casefold.
_READABLE = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x20000
_NAMES = {
    0x1: "compression",
    0x8: "journal_dev",
    0x1000: "dirdata",
    0x8000: "inline_data",
    0x10000: "encrypt",
}
_RO_BIGALLOC = 0x200
#: Fields of the superblock: name, offset, bytes (Documentation/filesystems/ext4/super.rst).
_SETTLED = (
    ("inodes", 0, 4),
    ("blocks", 4, 4),
    ("errors", 60, 2),
    ("compat", 92, 4),
    ("incompat", 96, 4),
    ("ro_compat", 100, 4),
    ("options", 256, 4),
)
_LARGE_FILE, _ORPHAN_PRESENT = 0x2, 0x10000
#: Offsets and sizes in a superblock: inodes, blocks, first block, block size, blocks and inodes per group, magic, size
#: of an inode, the upper half of blocks.
_SHARED = ((0, 8), (20, 8), (32, 4), (40, 4), (56, 2), (88, 2), (336, 4))
_MAX_LOG_BLOCK = 6  # 64 KiB, the largest block that ext4 defines


@dataclass(frozen=True, slots=True)
class Group:
    """One block group: first blocks of its bitmaps and inode table, and its flags."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What the superblock says; counts are in blocks unless named otherwise."""

    block_size: int
    blocks: int
    free_blocks: int
    inodes: int
    first_block: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    compat: int
    incompat: int
    ro_compat: int
    reserved_gdt: int
    desc_size: int
    first_meta_bg: int
    backup_groups: tuple[int, int]

    @property
    def groups(self) -> int:
        """Number of block groups."""
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def inode_table_blocks(self) -> int:
        """Blocks of each group's inode table."""
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    @property
    def descriptors_per_block(self) -> int:
        """Group descriptors in one block."""
        return self.block_size // self.desc_size

    def group_start(self, group: int) -> int:
        """First block of a group."""
        return self.first_block + group * self.blocks_per_group

    def has_backup(self, group: int) -> bool:
        """Whether a group holds superblock and descriptors: the originals (group 0) or a copy."""
        if group == 0:
            return True
        if self.compat & COMPAT_SPARSE_SUPER2:
            return group in self.backup_groups
        if not self.ro_compat & RO_SPARSE_SUPER or group == 1:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    def descriptor_block(self, index: int) -> int:
        """Block that holds the `index`th block of group descriptors."""
        if not self.incompat & INCOMPAT_META_BG or index < self.first_meta_bg:
            return self.first_block + 1 + index
        group = index * self.descriptors_per_block
        return self.group_start(group) + (1 if self.has_backup(group) else 0)


def read_superblock(source: Window) -> Superblock:
    """Read and check the superblock; `ImageError` for what is broken or cannot be read safely."""
    raw = source.read(SUPERBLOCK_OFFSET, 1024)
    if _u16(raw, 56) != MAGIC:
        raise ImageError(f"`{source.name}` has no ext4 superblock at byte {source.start + 1080}")
    incompat, ro_compat = _u32(raw, 96), _u32(raw, 100)
    _refuse_features(source, incompat, ro_compat)
    wide = bool(incompat & INCOMPAT_64BIT)
    log_size, revision = _u32(raw, 24), _u32(raw, 76)
    if log_size > _MAX_LOG_BLOCK:
        raise ImageError(f"`{source.name}` has a damaged ext4 superblock (block size)")
    found = Superblock(
        block_size=1024 << log_size,
        blocks=_u32(raw, 4) | (_u32(raw, 336) << 32 if wide else 0),
        free_blocks=_u32(raw, 12) | (_u32(raw, 344) << 32 if wide else 0),
        inodes=_u32(raw, 0),
        first_block=_u32(raw, 20),
        blocks_per_group=_u32(raw, 32),
        inodes_per_group=_u32(raw, 40),
        inode_size=_u16(raw, 88) if revision else 128,
        compat=_u32(raw, 92),
        incompat=incompat,
        ro_compat=ro_compat,
        reserved_gdt=_u16(raw, 206),
        desc_size=_u16(raw, 254) if wide else 32,
        first_meta_bg=_u32(raw, 260),
        backup_groups=(_u32(raw, 588), _u32(raw, 592)),
    )
    _refuse_nonsense(source, found)
    return found


def read_groups(source: Window, superblock: Superblock) -> Iterator[Group]:
    """All group descriptors in order."""
    size, wide = superblock.desc_size, superblock.desc_size >= 64  # noqa: PLR2004 -- the 64bit layout
    count = superblock.groups
    for index in range(-(-count // superblock.descriptors_per_block)):
        block = superblock.descriptor_block(index)
        raw = source.read(block * superblock.block_size, superblock.block_size)
        here = min(
            superblock.descriptors_per_block, count - index * superblock.descriptors_per_block
        )
        for at in range(0, here * size, size):
            low = struct.unpack_from("<III", raw, at)
            high = struct.unpack_from("<III", raw, at + 32) if wide else (0, 0, 0)
            bitmap, inodes, table = (lo | hi << 32 for lo, hi in zip(low, high, strict=True))
            yield Group(bitmap, inodes, table, _u16(raw, at + 18))


def damaged_backups(source: Window, superblock: Superblock) -> Iterator[int]:
    """Block groups whose copy of the superblock is none of this file system: e2fsck looks at the first one alone.

    Compared is what all copies share: Linux and the tools write labels, states and counts into the first.
    """
    first = source.read(SUPERBLOCK_OFFSET, 1024)
    for group in range(1, superblock.groups):
        if superblock.has_backup(group):
            copy = source.read(superblock.group_start(group) * superblock.block_size, 1024)
            if any(copy[at : at + size] != first[at : at + size] for at, size in _SHARED):
                yield group


def _refuse_features(source: Window, incompat: int, ro_compat: int) -> None:
    unknown = incompat & ~_READABLE
    names = [name for bit, name in _NAMES.items() if unknown & bit]
    if ro_compat & _RO_BIGALLOC:
        names.append("bigalloc")
    if unknown & ~sum(_NAMES):
        names.append(f"unknown bits {unknown & ~sum(_NAMES):#x}")
    if names:
        raise ImageError(
            f"`{source.name}` has an ext4 file system with features that are not supported: "
            + ", ".join(names)
        )
    if incompat & INCOMPAT_RECOVER:
        raise ImageError(
            f"the ext4 file system of `{source.name}` was not unmounted: "
            "its journal waits for recovery",
            hint="shut the machine down before copying its card, or run `e2fsck -f` on a copy",
        )


def _refuse_nonsense(source: Window, found: Superblock) -> None:
    bits = found.block_size * 8
    sane = (
        found.blocks > found.first_block <= 1
        and 0 < found.blocks_per_group <= bits
        and 0 < found.inodes_per_group <= bits
        and 128 <= found.inode_size <= found.block_size  # noqa: PLR2004 -- the format's bounds
        and found.inode_size & (found.inode_size - 1) == 0
        and 32 <= found.desc_size <= 1024  # noqa: PLR2004 -- the format's bounds
        and found.desc_size & (found.desc_size - 1) == 0
        and 0 < found.inodes <= found.groups * found.inodes_per_group
    )
    if not sane:
        raise ImageError(f"`{source.name}` has a damaged ext4 superblock")
    if found.blocks * found.block_size > source.size:
        raise ImageError(
            f"`{source.name}` is truncated: its ext4 file system ends at byte "
            f"{source.start + found.blocks * found.block_size} "
            f"and the file at {source.start + source.size}"
        )


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def _u16(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 2], "little")


def _u32(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


def settings(source: Window) -> str:
    """Size, features, behaviour on errors and default mount options, as words.

    Without the features `recover`, `large_file` and `orphan_present`, which a mount sets as it needs them.
    """
    raw = source.read(SUPERBLOCK_OFFSET, 1024)
    fields = {name: int.from_bytes(raw[at : at + size], "little") for name, at, size in _SETTLED}
    fields["incompat"] &= ~INCOMPAT_RECOVER
    fields["ro_compat"] &= ~(_LARGE_FILE | _ORPHAN_PRESENT)
    return " ".join(f"{name}={value:#x}" for name, value in fields.items())
