"""Directories of XFS: in the inode, in one block, or in many, of which those with names come first.

Layout: XFS Algorithms & Data Structures, chapter "Directories". What serves searching (hashes, leaves, free space)
is not read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from piimage.disk.checksum import holds
from piimage.disk.xfs_inode import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.inode import Inode, Run
    from piimage.disk.xfs_inode import Inodes

_SINGLE, _DATA = b"XDB3", b"XDD3"
_HEADER = 64
_LEAVES = 32 << 30  # where leaves begin, in bytes of the directory
_MOST = 64 << 20  # bytes of blocks with names
_UNUSED = b"\xff\xff"
_ALIGNMENT = 8


def names(inodes: Inodes, directory: Inode) -> dict[str, int]:
    """Inode numbers by name (`surrogateescape`), `.` and `..` left out; raises `ImageError`."""
    read = _short if inodes.data_fork(directory).format == LOCAL else _long
    found: dict[str, int] = {}
    for number, name in read(inodes, directory):
        text = name.decode(errors="surrogateescape")
        if "/" in text or "\0" in text or not text or text in found:
            raise inodes.damaged(f"directory inode {directory.number} holds the name {text!r}")
        found[text] = number
    # Those in an inode have neither.
    found.pop(".", None)
    found.pop("..", None)
    return found


def _short(inodes: Inodes, directory: Inode) -> Iterator[tuple[int, bytes]]:
    """Records in an inode: length, place, name, type, number of 4 bytes, or of 8 where one is larger."""
    raw = inodes.data_fork(directory).data[: directory.size]
    broken = inodes.damaged(f"directory inode {directory.number} has a broken record")
    if len(raw) < directory.size or len(raw) < 6:  # noqa: PLR2004 -- two counts and the parent
        raise broken
    count, width = raw[0], 8 if raw[1] else 4
    at, types = 2 + width, int(inodes.superblock.has_types)
    for _ in range(count):
        end = at + 3 + (raw[at] if at < len(raw) else len(raw))
        if end + types + width > len(raw):
            raise broken
        yield int.from_bytes(raw[end + types : end + types + width], "big"), raw[at + 3 : end]
        at = end + types + width


def _long(inodes: Inodes, directory: Inode) -> Iterator[tuple[int, bytes]]:
    """Records in blocks of their own: number, length, name, type, and their place at their end."""
    fixed = 11 + inodes.superblock.has_types
    for block, end in _blocks(inodes, directory):
        at = _HEADER
        while at < end:
            if block[at : at + 2] == _UNUSED:
                size = int.from_bytes(block[at + 2 : at + 4], "big")
            else:
                size = -(-(fixed + block[at + 8]) // _ALIGNMENT) * _ALIGNMENT
                yield (
                    int.from_bytes(block[at : at + 8], "big"),
                    block[at + 9 : at + 9 + block[at + 8]],
                )
            if not size or size % _ALIGNMENT or at + size > end:
                raise inodes.damaged(f"directory inode {directory.number} has a broken record")
            at += size


def _blocks(inodes: Inodes, directory: Inode) -> Iterator[tuple[bytes, int]]:
    """Directory blocks with names, each with where its records end."""
    superblock = inodes.superblock
    address = struct.Struct(">4s4xQ8x16sQ")
    for first, block in _read(inodes, directory):
        magic, place, uuid, owner = address.unpack_from(block)
        expected = (first * superblock.block_size // 512, superblock.meta_uuid, directory.number)
        end = len(block)
        if magic == _SINGLE:  # hashes lie behind the records: 8 bytes each, and two counts
            end -= 8 + int.from_bytes(block[-8:-4], "big") * 8
        known = magic in (_SINGLE, _DATA) and (place, uuid, owner) == expected
        if not known or end < _HEADER or not holds(block, 4):
            raise inodes.damaged(f"directory inode {directory.number} has a broken block")
        yield block, end


def _read(inodes: Inodes, directory: Inode) -> Iterator[tuple[int, bytes]]:
    """Whole directory blocks, each with the number of its first block; one may be scattered."""
    size, whole = inodes.superblock.block_size, inodes.superblock.directory_block_size
    runs = _with_names(inodes, directory)
    pending, first, expected = b"", 0, 0
    for run in runs:
        if not run.written or (run.logical != expected if pending else run.logical * size % whole):
            raise inodes.damaged(f"directory inode {directory.number} has a broken block")
        expected = run.logical + run.count
        for at in range(run.physical, run.physical + run.count):
            first = first if pending else at
            pending += inodes.source.read(at * size, size)
            if len(pending) == whole:
                yield first, pending
                pending = b""
    if pending:
        raise inodes.damaged(f"directory inode {directory.number} has a broken block")


def _with_names(inodes: Inodes, directory: Inode) -> list[Run]:
    size = inodes.superblock.block_size
    runs = inodes.fork_runs(directory, inodes.data_fork(directory))
    found = [run for run in runs if run.logical * size < _LEAVES]
    if sum(run.count for run in found) * size > _MOST:
        raise inodes.damaged(f"directory inode {directory.number} is too large")
    return found
