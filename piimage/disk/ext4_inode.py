"""Inodes of ext2/3/4: attributes, and where the content lies (extent trees and indirect blocks)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from piimage.disk.ext4_super import Superblock, read_groups, read_superblock
from piimage.disk.inode import Inode, Run, gathered
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.window import Window

_FLAG_ENCRYPT, _FLAG_EXTENTS, _FLAG_INLINE = 0x800, 0x80000, 0x10000000
_EXTENT_MAGIC, _MAX_DEPTH, _UNWRITTEN = 0xF30A, 5, 32768
_DIRECT = 12
_FAST_LINK = 60  # shorter targets lie in the inode itself


class Inodes:
    """The inodes of one file system and their content; nothing here knows about paths."""

    def __init__(self, source: Window) -> None:
        self.source = source
        self.superblock: Superblock = read_superblock(source)
        self.groups = list(read_groups(source, self.superblock))

    def damaged(self, what: str) -> ImageError:
        """The error for a structure that contradicts itself."""
        return ImageError(
            f"the ext4 file system of `{self.source.name}` is damaged: {what}",
            hint="see `e2fsck -fn` on it, and use another copy of the image",
        )

    def inode(self, number: int) -> Inode:
        """Inode `number`; raises `ImageError` if there is none or nothing uses it."""
        sb = self.superblock
        if not 1 <= number <= sb.inodes:
            raise self.damaged(f"inode {number} does not exist")
        group, index = divmod(number - 1, sb.inodes_per_group)
        at = self.groups[group].inode_table * sb.block_size + index * sb.inode_size
        raw = self.source.read(at, 128)
        mode, uid, size, _, _, mtime, _, gid, links = struct.unpack_from("<HHIIIIIHH", raw)
        if links == 0 or mode == 0:
            raise self.damaged(f"inode {number} is in use and marked free")
        high = int.from_bytes(raw[108:112], "little")
        return Inode(
            number=number,
            mode=mode,
            uid=uid | int.from_bytes(raw[120:122], "little") << 16,
            gid=gid | int.from_bytes(raw[122:124], "little") << 16,
            size=size | high << 32,
            mtime=mtime,
            links=links,
            flags=int.from_bytes(raw[32:36], "little"),
            raw=raw,
        )

    def whole(self, number: int) -> bytes:
        """All bytes of inode `number`, those behind the first 128 too, where there are any."""
        sb = self.superblock
        group, index = divmod(number - 1, sb.inodes_per_group)
        at = self.groups[group].inode_table * sb.block_size + index * sb.inode_size
        return self.source.read(at, sb.inode_size)

    def runs(self, inode: Inode) -> list[Run]:
        """Where the content lies, in file order, holes left out; `ImageError` if that is broken."""
        if inode.flags & (_FLAG_ENCRYPT | _FLAG_INLINE):
            raise self.damaged(f"inode {inode.number} is encrypted or inline")
        blocks = -(-inode.size // self.superblock.block_size)
        walk = self._extents if inode.flags & _FLAG_EXTENTS else self._indirect
        found: list[Run] = []
        for run in walk(inode, blocks):
            if found and run.logical < found[-1].logical + found[-1].count:
                raise self.damaged(f"inode {inode.number} has overlapping extents")
            if not 0 < run.physical <= self.superblock.blocks - run.count:
                raise self.damaged(f"inode {inode.number} refers to blocks outside the file system")
            found.append(run)
        return found

    def link_target(self, inode: Inode) -> bytes:
        """What a symbolic link holds."""
        if inode.size >= self.superblock.block_size:
            raise self.damaged(f"the link in inode {inode.number} is too long")
        if inode.size < _FAST_LINK and not inode.flags & _FLAG_EXTENTS:
            return block_map(inode)[: inode.size]
        return gathered(self.source, self.runs(inode), inode.size, self.superblock.block_size)

    def _extents(self, inode: Inode, blocks: int) -> Iterator[Run]:
        """Runs of an extent tree; a leaf past the end of the file (preallocation) is left out."""
        for run in self._node(inode, block_map(inode), _MAX_DEPTH, first=True):
            if run.logical < blocks:
                yield run

    def _node(self, inode: Inode, raw: bytes, depth: int, *, first: bool = False) -> Iterator[Run]:
        magic, entries, _, height = struct.unpack_from("<HHHH", raw)
        room = (len(raw) - 12) // 12
        if (
            magic != _EXTENT_MAGIC
            or entries > room
            or (height > depth if first else height != depth)
        ):
            raise self.damaged(f"inode {inode.number} has a broken extent tree")
        block = self.superblock.block_size
        for at in range(12, 12 + entries * 12, 12):
            if height:
                _, low, high = struct.unpack_from("<IIH", raw, at)
                child = self.source.read((low | high << 32) * block, block)
                yield from self._node(inode, child, height - 1)
            else:
                logical, length, high, low = struct.unpack_from("<IHHI", raw, at)
                count = length if length <= _UNWRITTEN else length - _UNWRITTEN
                yield Run(logical, low | high << 32, count, length <= _UNWRITTEN)

    def _indirect(self, inode: Inode, blocks: int) -> Iterator[Run]:
        """Runs of the block map that ext2 and ext3 use, neighbours joined."""
        last: Run | None = None
        for logical, physical in self._mapped(inode, blocks):
            if last and (logical, physical) == (
                last.logical + last.count,
                last.physical + last.count,
            ):
                last = Run(last.logical, last.physical, last.count + 1, written=True)
                continue
            if last:
                yield last
            last = Run(logical, physical, 1, written=True)
        if last:
            yield last

    def _mapped(self, inode: Inode, blocks: int) -> Iterator[tuple[int, int]]:
        pointers = struct.unpack("<15I", block_map(inode))
        for logical, physical in enumerate(pointers[:_DIRECT]):
            if physical and logical < blocks:
                yield logical, physical
        base, per_block = _DIRECT, self.superblock.block_size // 4
        for level, pointer in enumerate(pointers[_DIRECT:], start=1):
            if base >= blocks:
                return
            if pointer:
                yield from self._table(pointer, level, base, blocks)
            base += per_block**level

    def _table(self, pointer: int, level: int, base: int, blocks: int) -> Iterator[tuple[int, int]]:
        size = self.superblock.block_size
        per_block = size // 4
        span = per_block ** (level - 1)
        for index, child in enumerate(
            struct.unpack(f"<{per_block}I", self.source.read(pointer * size, size))
        ):
            first = base + index * span
            if first >= blocks:
                return
            if child and level == 1:
                yield first, child
            elif child:
                yield from self._table(child, level - 1, first, blocks)


def block_map(inode: Inode) -> bytes:
    """Where the content lies, or a short link's target: i_block."""
    return inode.raw[40:100]
