"""Extended attributes of ext4: SELinux labels, capabilities, ACLs.

They lie behind the inode's fields, and in a block of their own where that is too small. Layout: the kernel's
Documentation/filesystems/ext4/attributes.rst.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.ext4_inode import Inodes
    from piimage.disk.inode import Inode

_MAGIC = 0xEA020000
_OLD_INODE = 128
_HEADER = 32
_ENTRY = struct.Struct("<BBHIII")
_PREFIXES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
    8: "system.richacl",
}


def attributes(inodes: Inodes, inode: Inode) -> dict[str, bytes]:
    """Values by name (`security.selinux`); raises `ImageError` for what is broken.

    A value that has an inode of its own (feature `ea_inode`) is told by that inode's number.
    """
    found: dict[str, bytes] = {}
    raw = inodes.whole(inode.number)
    if len(raw) > _OLD_INODE + 4:
        start = _OLD_INODE + int.from_bytes(raw[_OLD_INODE : _OLD_INODE + 2], "little")
        if raw[start : start + 4] == _MAGIC.to_bytes(4, "little"):
            found |= dict(_entries(inodes, inode, raw[start + 4 :], 0))
    acl = int.from_bytes(inode.raw[104:108], "little")
    acl |= int.from_bytes(inode.raw[118:120], "little") << 32
    if acl:  # a block for what found no room in the inode
        size = inodes.superblock.block_size
        block = inodes.source.read(acl * size, size)
        if block[:4] != _MAGIC.to_bytes(4, "little"):
            raise inodes.damaged(f"inode {inode.number} has a broken block of attributes")
        found |= dict(_entries(inodes, inode, block, _HEADER))
    return found


def _entries(inodes: Inodes, inode: Inode, raw: bytes, start: int) -> Iterator[tuple[str, bytes]]:
    """Names and values from `raw`, whose first entry is at `start`."""
    at = start
    while raw[at : at + 4] not in (b"\0\0\0\0", b""):
        if at + _ENTRY.size > len(raw):
            raise inodes.damaged(f"inode {inode.number} has broken attributes")
        length, index, offset, number, size, _ = _ENTRY.unpack_from(raw, at)
        name = raw[at + _ENTRY.size : at + _ENTRY.size + length]
        value = b"inode %d" % number if number else raw[offset : offset + size]
        if len(name) != length or (not number and len(value) != size):
            raise inodes.damaged(f"inode {inode.number} has broken attributes")
        yield _PREFIXES.get(index, f"{index}.") + name.decode(errors="backslashreplace"), value
        at += _ENTRY.size + -(-length // 4) * 4
