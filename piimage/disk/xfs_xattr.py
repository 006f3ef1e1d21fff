"""Extended attributes of XFS: SELinux labels, capabilities, ACLs; in the inode, or in a tree of blocks.

Layout: XFS Algorithms & Data Structures, chapter "Extended Attributes"; ACLs: fs/xfs/xfs_acl.c of the kernel.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING

from piimage.disk.checksum import holds
from piimage.disk.xfs_inode import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.inode import Inode
    from piimage.disk.xfs_inode import Fork, Inodes
    from piimage.errors import ImageError

_NODE, _LEAF, _REMOTE = 0x3EBE, 0x3BEE, b"XARM"
_IN_PLACE, _ROOT, _SECURE, _PARENT, _INCOMPLETE = 0x1, 0x2, 0x4, 0x8, 0x80
_NODE_HEADER, _LEAF_HEADER, _REMOTE_HEADER = 64, 80, 56
_LOCAL_HEAD, _REMOTE_HEAD = struct.Struct(">HB"), struct.Struct(">IIB")
_MOST = 64 << 20  # bytes of values that one inode may have
_MOST_VALUE = 64 << 10  # XATTR_SIZE_MAX of the kernel
_ACLS = {
    "trusted.SGI_ACL_FILE": "system.posix_acl_access",
    "trusted.SGI_ACL_DEFAULT": "system.posix_acl_default",
}
_ACL_ENTRY = struct.Struct(">IIHxx")
_NAMED = (0x02, 0x08)  # entries of users and groups, which have a number


def attributes(inodes: Inodes, inode: Inode) -> dict[str, bytes]:
    """Values by name (`security.selinux`); raises `ImageError` for what is broken.

    ACLs are given as getxattr(2) does. Pointers to parents are left out, and what was not written to its end.
    """
    fork = inodes.attribute_fork(inode)
    if fork is None:
        return {}
    read = _short if fork.format == LOCAL else _long
    found: dict[str, bytes] = {}
    for flags, name, value in read(inodes, inode, fork):
        if flags & (_PARENT | _INCOMPLETE):
            continue
        prefix = "trusted." if flags & _ROOT else "security." if flags & _SECURE else "user."
        text = prefix + name.decode(errors="backslashreplace")
        if text in found:
            raise _broken(inodes, inode)
        found[text] = value
    for stored, usual in _ACLS.items():
        if stored in found:
            found[usual] = _acl(inodes, inode, found.pop(stored))
    return found


def _broken(inodes: Inodes, inode: Inode) -> ImageError:
    return inodes.damaged(f"inode {inode.number} has broken attributes")


def _short(inodes: Inodes, inode: Inode, fork: Fork) -> Iterator[tuple[int, bytes, bytes]]:
    """Flags, name and value of attributes in the inode."""
    raw = fork.data
    size, count = int.from_bytes(raw[:2], "big"), raw[2] if len(raw) > 4 else 0  # noqa: PLR2004 -- the header
    at, end = 4, min(size, len(raw))
    for _ in range(count):
        lengths = raw[at : min(at + 3, end)]
        if len(lengths) < 3 or at + 3 + lengths[0] + lengths[1] > end:  # noqa: PLR2004 -- two lengths and flags
            raise _broken(inodes, inode)
        value = at + 3 + lengths[0]
        at, name = value + lengths[1], raw[at + 3 : value]
        yield lengths[2], name, raw[value:at]


def _long(inodes: Inodes, inode: Inode, fork: Fork) -> Iterator[tuple[int, bytes, bytes]]:
    """The same of attributes in blocks."""
    return _Tree(inodes, inode, fork).records()


class _Tree:
    """Attributes in blocks of their own."""

    def __init__(self, inodes: Inodes, inode: Inode, fork: Fork) -> None:
        self._inodes, self._inode = inodes, inode
        self._size = inodes.superblock.block_size
        self._runs = [run for run in inodes.fork_runs(inode, fork) if run.written]
        self._left = _MOST

    def records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Flags, name and value of all attributes. No block is looked at twice."""
        todo = [0] if self._runs else []
        seen: set[int] = set()
        while todo:
            number = todo.pop()
            if number in seen:
                raise _broken(self._inodes, self._inode)
            seen.add(number)
            place, raw = self._read(number)
            magic, address, uuid, owner, count = struct.unpack_from(">8xH6xQ8x16sQH", raw)
            self._check((address, uuid, owner), place, raw)
            if magic == _NODE and 0 < count <= (self._size - _NODE_HEADER) // 8:
                pairs = struct.unpack_from(f">{count * 2}I", raw, _NODE_HEADER)
                todo += pairs[:0:-2]
            elif magic == _LEAF and count <= (self._size - _LEAF_HEADER) // 8:
                for index in range(count):
                    where, flags = struct.unpack_from(">4xHB", raw, _LEAF_HEADER + index * 8)
                    yield (flags, *self._record(raw, where, flags))
            else:
                raise _broken(self._inodes, self._inode)

    def _record(self, raw: bytes, at: int, flags: int) -> tuple[bytes, bytes]:
        """Name and value of the attribute at byte `at` of a block: sizes first, of a remote value also its place."""
        in_place = bool(flags & _IN_PLACE)
        head = _LOCAL_HEAD if in_place else _REMOTE_HEAD
        if at < _LEAF_HEADER or at + head.size > len(raw):
            raise _broken(self._inodes, self._inode)
        *first, size, length = head.unpack_from(raw, at)
        value = at + head.size + length
        if value + (size if in_place else 0) > len(raw):
            raise _broken(self._inodes, self._inode)
        name = raw[at + head.size : value]
        if in_place:
            return name, raw[value : value + size]
        # What is not complete has no blocks yet, or no more.
        return name, b"" if flags & _INCOMPLETE else self._remote(first[0], size)

    def _remote(self, number: int, size: int) -> bytes:
        """A value of `size` bytes that begins in block `number`; each block of it has a header."""
        self._left -= size
        if size > _MOST_VALUE or self._left < 0:
            raise _broken(self._inodes, self._inode)
        out = b""
        while len(out) < size:
            place, raw = self._read(number)
            magic, offset, length, uuid, owner, address = struct.unpack_from(">4sII4x16sQQ", raw)
            self._check((address, uuid, owner), place, raw)
            room = min(size - len(out), self._size - _REMOTE_HEADER)
            if (magic, offset, length) != (_REMOTE, len(out), room):
                raise _broken(self._inodes, self._inode)
            out += raw[_REMOTE_HEADER : _REMOTE_HEADER + room]
            number += 1
        return out

    def _read(self, number: int) -> tuple[int, bytes]:
        """Where block `number` of the fork lies, and what."""
        index = bisect_right(self._runs, number, key=lambda run: run.logical) - 1
        run = self._runs[index]
        if index < 0 or number >= run.logical + run.count:
            raise _broken(self._inodes, self._inode)
        place = run.physical + number - run.logical
        return place, self._inodes.source.read(place * self._size, self._size)

    def _check(self, found: tuple[int, bytes, int], place: int, raw: bytes) -> None:
        """A block's address, UUID and owner, and its checksum."""
        expected = (
            place * self._size // 512, self._inodes.superblock.meta_uuid, self._inode.number,
        )  # fmt: skip
        if found != expected or not holds(raw, 12):
            raise _broken(self._inodes, self._inode)


def _acl(inodes: Inodes, inode: Inode, raw: bytes) -> bytes:
    """The attribute of an ACL as programs know it: version 2, then tag, permissions and number of each entry."""
    count = int.from_bytes(raw[:4], "big")
    if len(raw) != 4 + count * _ACL_ENTRY.size:
        raise _broken(inodes, inode)
    out = struct.pack("<I", 2)
    for tag, number, permissions in _ACL_ENTRY.iter_unpack(raw[4:]):
        if tag >> 16:
            raise _broken(inodes, inode)
        out += struct.pack("<HHI", tag, permissions, number if tag in _NAMED else 0xFFFFFFFF)
    return out
