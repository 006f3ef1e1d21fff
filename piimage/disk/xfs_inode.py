"""Inodes of XFS: attributes, and where their two forks lie (data, and extended attributes).

Layout: XFS Algorithms & Data Structures, chapters "On-disk Inode" and "Data Extents"; 64-bit counters and times from
the kernel's fs/xfs/libxfs/xfs_format.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from piimage.disk.checksum import holds
from piimage.disk.inode import Inode, Run
from piimage.disk.xfs_super import Superblock, read_superblock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.window import Window
    from piimage.errors import ImageError

#: Formats of a fork: a device's number, content in the inode, a list of extents, a tree of extents.
DEVICE, LOCAL, EXTENTS, BTREE = range(4)

#: Magic, mode, version, format of the data, uid, gid, links, mtime, size, flags, more flags, number, UUID.
_CORE = struct.Struct(">HHBB2xIII20xq8xq26xH28xQ24xQ16s")
_CORE_SIZE = 176
_MAGIC, _VERSION = 0x494E, 3
_REALTIME, _IMMUTABLE, _APPEND = 0x1, 0x8, 0x10
_SHARED, _BIG_TIME, _BIG_COUNTERS = 0x2, 0x8, 0x10
_BIG_TIME_EPOCH = -(1 << 31)  # what a time of 64 bits counts nanoseconds from, in epoch seconds
_EXTENT = struct.Struct(">QQ")
_NODE_HEADER, _NODE_MAGIC = 72, b"BMA3"
_MAX_DEPTH = 9  # XFS_BM_MAXLEVELS of the data fork
#: Types of inodes (S_IFMT) and the formats that their data may have.
_FORMATS = {
    0o010000: (DEVICE,),
    0o020000: (DEVICE,),
    0o040000: (LOCAL, EXTENTS, BTREE),
    0o060000: (DEVICE,),
    0o100000: (EXTENTS, BTREE),
    0o120000: (LOCAL, EXTENTS),
    0o140000: (DEVICE,),
}


class Fork(NamedTuple):
    """One of an inode's two forks: its format, how many extents it claims, its bytes in the inode."""

    format: int
    extents: int
    data: bytes


class Inodes:
    """The inodes of one file system and their forks; nothing here knows about paths or names."""

    def __init__(self, source: Window) -> None:
        self.source = source
        self.superblock: Superblock = read_superblock(source)

    def damaged(self, what: str) -> ImageError:
        """The error for a structure that contradicts itself."""
        return self.superblock.damaged(what)

    def inode(self, number: int) -> Inode:
        """Inode `number`; raises `ImageError` if there is none, nothing uses it or its checksum is wrong."""
        sb = self.superblock
        raw = self.source.read(sb.inode_place(number), sb.inode_size)
        (magic, mode, version, data_format, uid, gid, links, *more) = _CORE.unpack_from(raw)
        mtime, size, flags, more_flags, itself, uuid = more
        expected = (_MAGIC, _VERSION, number, sb.meta_uuid)
        if (magic, version, itself, uuid) != expected or not holds(raw, 100):
            raise self.damaged(f"inode {number} has a broken head")
        if links == 0 or mode == 0:
            raise self.damaged(f"inode {number} is in use and marked free")
        if data_format not in _FORMATS.get(mode & 0o170000, ()) or size < 0 or flags & _REALTIME:
            raise self.damaged(f"inode {number} is of no known kind")
        return Inode(
            number=number,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime=_seconds(mtime, big=bool(more_flags & _BIG_TIME)),
            links=links,
            flags=_common(flags),
            raw=raw,
        )

    def data_fork(self, inode: Inode) -> Fork:
        """Where the content lies."""
        raw = inode.raw
        big = _more_flags(inode) & _BIG_COUNTERS
        at, size = (24, 8) if big else (76, 4)
        end = _CORE_SIZE + raw[82] * 8 if raw[82] else len(raw)
        if end > len(raw):
            raise self.damaged(f"inode {inode.number} has forks that do not fit")
        return Fork(raw[5], int.from_bytes(raw[at : at + size], "big"), raw[_CORE_SIZE:end])

    def attribute_fork(self, inode: Inode) -> Fork | None:
        """Where the extended attributes lie, None if there are none."""
        raw = inode.raw
        if not raw[82]:
            return None
        big = _more_flags(inode) & _BIG_COUNTERS
        at, size = (76, 4) if big else (80, 2)
        data = raw[_CORE_SIZE + raw[82] * 8 :]
        if not data or raw[83] not in (LOCAL, EXTENTS, BTREE):
            raise self.damaged(f"inode {inode.number} has forks that do not fit")
        return Fork(raw[83], int.from_bytes(raw[at : at + size], "big"), data)

    def fork_runs(self, inode: Inode, fork: Fork) -> list[Run]:
        """The extents of a fork that is not `LOCAL`, ascending, holes left out; raises `ImageError`."""
        if fork.format == DEVICE:
            return []
        if fork.format == LOCAL:
            raise self.damaged(f"inode {inode.number} holds its content itself")
        records = self._listed if fork.format == EXTENTS else self._tree
        block, found, end = self.superblock.block, [], 0
        for high, low in records(inode, fork):
            logical, count = high >> 9 & (1 << 54) - 1, low & (1 << 21) - 1
            if logical < end or not count:
                raise self.damaged(f"inode {inode.number} has overlapping extents")
            place = block((high & 0x1FF) << 43 | low >> 21, count)
            found.append(Run(logical, place, count, not high >> 63))
            end = logical + count
        if len(found) != fork.extents:
            raise self.damaged(f"inode {inode.number} miscounts its extents")
        return found

    def _listed(self, inode: Inode, fork: Fork) -> Iterator[tuple[int, int]]:
        if fork.extents * _EXTENT.size > len(fork.data):
            raise self.damaged(f"inode {inode.number} has more extents than it has room for")
        return _EXTENT.iter_unpack(fork.data[: fork.extents * _EXTENT.size])

    def _tree(self, inode: Inode, fork: Fork) -> Iterator[tuple[int, int]]:
        level, count = struct.unpack_from(">HH", fork.data)
        room = (len(fork.data) - 4) // 16
        if not 0 < level <= _MAX_DEPTH or not 0 < count <= room:
            raise self.damaged(f"inode {inode.number} has a broken extent tree")
        start = 4 + room * 8
        for child in struct.unpack_from(f">{count}Q", fork.data, start):
            yield from self._node(inode, child, level - 1)

    def _node(self, inode: Inode, number: int, level: int) -> Iterator[tuple[int, int]]:
        """Extents below a block of the tree; the caller stops when they go back, so none is visited for ever."""
        size, place = self.superblock.block_size, self.superblock.block(number)
        raw = self.source.read(place * size, size)
        magic, height, count, address, uuid, owner = struct.unpack_from(">4sHH16xQ8x16sQ", raw)
        room = (size - _NODE_HEADER) // 16
        if (
            (magic, height, address, uuid, owner)
            != (_NODE_MAGIC, level, place * size // 512, self.superblock.meta_uuid, inode.number)
            or not 0 < count <= room
            or not holds(raw, 64)
        ):  # fmt: skip
            raise self.damaged(f"inode {inode.number} has a broken extent tree")
        if not level:
            yield from _EXTENT.iter_unpack(raw[_NODE_HEADER : _NODE_HEADER + count * 16])
            return
        for child in struct.unpack_from(f">{count}Q", raw, _NODE_HEADER + room * 8):
            yield from self._node(inode, child, level - 1)


def is_shared(inode: Inode) -> bool:
    """Whether blocks of a file may also be another's (reflink), so that writing into them changes both."""
    return bool(_more_flags(inode) & _SHARED)


def _more_flags(inode: Inode) -> int:
    return int.from_bytes(inode.raw[120:128], "big")


def _seconds(time: int, *, big: bool) -> int:
    """Epoch seconds of a time: 32 bits of them before as many of nanoseconds, or 64 bits of nanoseconds."""
    if big:
        return (time & (1 << 64) - 1) // 1_000_000_000 + _BIG_TIME_EPOCH
    return time >> 32


def _common(flags: int) -> int:
    """`Inode.flags`: the two bits that chattr(1) knows, the format's own above them."""
    return (0x10 if flags & _IMMUTABLE else 0) | (0x20 if flags & _APPEND else 0) | flags << 16
