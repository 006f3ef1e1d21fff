"""The XFS superblock, straight from an image, and whether the log holds changes that lie nowhere else.

Numbers are big-endian, checksums little-endian. Layout: XFS Algorithms & Data Structures, 3rd edition (chapters
"Superblocks" and "Journaling Log"), and of newer features the kernel's fs/xfs/libxfs/xfs_format.h. Tests compare
with xfs_db.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.disk.checksum import holds
from piimage.disk.xfs_log import is_clean
from piimage.errors import ImageError

if TYPE_CHECKING:
    from piimage.disk.window import Window

MAGIC = b"XFSB"
_SIZE = 512  # the smallest sector
_VERSION, _VERSION_MASK, _CASE_INSENSITIVE = 5, 0xF, 0x4000
_FTYPE, _META_UUID = 0x1, 0x4
#: Incompatible features that this reader knows: ftype, sparse inode chunks, meta_uuid, bigtime, nrext64, exchrange
#: (which changes nothing on the disk) and parent (pointers to parents, among the extended attributes).
_READABLE = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80
_NEEDS_REPAIR = 0x10
_NAMES = {0x100: "metadir", 0x200: "zoned", 0x400: "zone_gaps"}
#: Name, offset and size of what is settled when the file system is made.
_SETTLED = (
    ("block_size", 4, 4),
    ("blocks", 8, 8),
    ("group_blocks", 84, 4),
    ("log_start", 48, 8),
    ("log_blocks", 96, 4),
    ("log_unit", 196, 4),
    ("sector_size", 102, 2),
    ("inode_size", 104, 2),
    ("inode_alignment", 180, 4),
    ("inodes_at_most", 127, 1),
    ("stripe_unit", 184, 4),
    ("stripe_width", 188, 4),
    ("directory_block", 192, 1),
    ("compat", 208, 4),
    ("ro_compat", 212, 4),
    ("incompat", 216, 4),
)
_MIN_AG_BLOCKS = 64
_MAX_GROUPS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What the superblock says; counts are in file-system blocks unless named otherwise.

    Blocks are counted through the file system here. On the disk, numbers of blocks and inodes have the number of
    their allocation group in the upper bits.
    """

    name: str
    block_size: int
    sector_size: int
    blocks: int
    free_blocks: int
    uuid: bytes
    meta_uuid: bytes
    root: int
    group_blocks: int
    groups: int
    group_bits: int
    inode_size: int
    inode_bits: int
    directory_block_size: int
    log_start: int
    log_blocks: int
    has_types: bool

    def group_length(self, group: int) -> int:
        """Blocks of an allocation group; the last one may be shorter."""
        return min(self.group_blocks, self.blocks - group * self.group_blocks)

    def block(self, number: int, count: int = 1) -> int:
        """The block that the disk calls `number`; `ImageError` unless `count` blocks lie there in one group."""
        group, at = number >> self.group_bits, number & (1 << self.group_bits) - 1
        if group >= self.groups or not 0 < at <= self.group_length(group) - count:
            raise self.damaged(f"it refers to block {number:#x}, which does not exist")
        return group * self.group_blocks + at

    def inode_place(self, number: int) -> int:
        """Byte offset of an inode; `ImageError` if there is no such place."""
        group = number >> self.group_bits + self.inode_bits
        within = number & (1 << self.group_bits + self.inode_bits) - 1
        block, index = within >> self.inode_bits, within & (1 << self.inode_bits) - 1
        if group >= self.groups or not 0 < block < self.group_length(group):
            raise self.damaged(f"inode {number} does not exist")
        return (group * self.group_blocks + block) * self.block_size + index * self.inode_size

    def damaged(self, what: str) -> ImageError:
        """The error for a structure that contradicts itself."""
        return ImageError(
            f"the xfs file system of `{self.name}` is damaged: {what}",
            hint="see `xfs_repair -n` on a copy of it, and use another copy of the image",
        )


def read_superblock(source: Window) -> Superblock:
    """Read and check the superblock; `ImageError` for what is broken, dirty or cannot be read safely."""
    raw = source.read(0, _SIZE)
    if raw[:4] != MAGIC:
        raise ImageError(f"`{source.name}` has no xfs superblock at byte {source.start}")
    version, sector_size = struct.unpack_from(">HH", raw, 100)
    if version & _VERSION_MASK != _VERSION:
        raise ImageError(
            f"`{source.name}` has an xfs file system of version {version & _VERSION_MASK}, "
            "and version 5 alone is supported"
        )
    if sector_size not in (512, 1024, 2048, 4096, 8192, 16384, 32768) or not holds(
        source.read(0, sector_size), 224
    ):
        raise ImageError(f"`{source.name}` has a damaged xfs superblock")
    _refuse_features(source, raw, version)
    found = _parsed(source.name, raw)
    _refuse_nonsense(source, raw, found)
    log = found.log_start * found.block_size
    if not is_clean(source, log, found.log_blocks * found.block_size):
        raise ImageError(
            f"the xfs file system of `{source.name}` was not unmounted: its log waits for recovery",
            hint="shut the machine down before copying its card, or mount and unmount it once on a copy",
        )
    return found


def settings(source: Window) -> str:
    """Size, geometry and features, as words; without versions and features that Linux sets as it needs them."""
    raw = source.read(0, _SIZE)
    fields = {name: int.from_bytes(raw[at : at + size], "big") for name, at, size in _SETTLED}
    fields["incompat"] &= ~_NEEDS_REPAIR
    return " ".join(f"{name}={value:#x}" for name, value in fields.items())


def _parsed(name: str, raw: bytes) -> Superblock:
    incompat = _u32(raw, 216)
    group_bits, group_blocks = raw[124], _u32(raw, 84)
    log = _u64(raw, 48)
    block_size = _u32(raw, 4)
    return Superblock(
        name=name,
        block_size=block_size,
        sector_size=_u16(raw, 102),
        blocks=_u64(raw, 8),
        free_blocks=_u64(raw, 144),
        uuid=raw[32:48],
        meta_uuid=raw[248:264] if incompat & _META_UUID else raw[32:48],
        root=_u64(raw, 56),
        group_blocks=group_blocks,
        groups=_u32(raw, 88),
        group_bits=group_bits,
        inode_size=_u16(raw, 104),
        inode_bits=raw[123],
        directory_block_size=block_size << raw[192] % 32,
        log_start=(log >> group_bits) * group_blocks + (log & (1 << group_bits) - 1),
        log_blocks=_u32(raw, 96),
        has_types=bool(incompat & _FTYPE),
    )


def _refuse_features(source: Window, raw: bytes, version: int) -> None:
    incompat = _u32(raw, 216)
    unknown = incompat & ~(_READABLE | _NEEDS_REPAIR)
    names = [name for bit, name in _NAMES.items() if unknown & bit]
    if unknown & ~sum(_NAMES):
        names.append(f"unknown bits {unknown & ~sum(_NAMES):#x}")
    if version & _CASE_INSENSITIVE:
        names.append("ascii-ci")
    if _u64(raw, 16):
        names.append("a realtime section")
    if not _u64(raw, 48):
        names.append("an external log")
    if names:
        raise ImageError(
            f"`{source.name}` has an xfs file system with features that are not supported: "
            + ", ".join(names)
        )
    if incompat & _NEEDS_REPAIR:
        raise ImageError(
            f"the xfs file system of `{source.name}` says that it needs repair",
            hint="run `xfs_repair` on a copy, or use another copy of the image",
        )


def _refuse_nonsense(source: Window, raw: bytes, found: Superblock) -> None:
    sane = (
        # the format's bounds, and logarithms that agree with what they are logarithms of
        found.block_size == 1 << raw[120] % 32
        and 1024 <= found.block_size <= 1 << 16  # noqa: PLR2004 -- the format's bounds
        and found.sector_size <= found.block_size
        and found.inode_size == 1 << raw[122] % 32
        and 512 <= found.inode_size <= min(2048, found.block_size)  # noqa: PLR2004 -- the format's bounds
        and found.inode_size << found.inode_bits % 32 == found.block_size
        and found.directory_block_size <= 1 << 16
        and found.group_blocks >= _MIN_AG_BLOCKS
        and found.group_bits == (found.group_blocks - 1).bit_length()
        and 0 < found.groups <= _MAX_GROUPS
        and found.groups == -(-found.blocks // found.group_blocks)
        and found.free_blocks <= found.blocks
        and found.log_blocks > 0
        and not raw[126]  # still being made
    )
    log = _u64(raw, 48)
    if not sane:
        raise ImageError(f"`{source.name}` has a damaged xfs superblock")
    found.block(log, found.log_blocks)
    if found.blocks * found.block_size > source.size:
        raise ImageError(
            f"`{source.name}` is truncated: its xfs file system ends at byte "
            f"{source.start + found.blocks * found.block_size} "
            f"and the file at {source.start + source.size}"
        )


def _u16(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 2], "big")


def _u32(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "big")


def _u64(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 8], "big")
