"""A payload whose root file system fills its card: grown before anything is written, as part of what is written.

So growth is read back, gone on with after a break, and worth nothing without the partition table, like all the rest.
resize2fs works on a scratch file that holds what the file system has in use; what it changes there goes over the image
as patches.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.disk import ext4
from piimage.disk.atomic import create, require_space, write_errors
from piimage.disk.slots import Patch
from piimage.disk.sparse import data_ranges
from piimage.disk.table import SECTOR, grown_entry
from piimage.disk.window import joined
from piimage.errors import UnsupportedError
from piimage.flash.needed import Known
from piimage.flash.ranges import BLOCK, amount, common, pieces, rounded, without
from piimage.run import require, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from piimage.facts import Partition
    from piimage.flash.payload import Payload, Reader
    from piimage.flash.ranges import Range

#: Partitions end at a multiple of this, in which cards are erased at the least.
_GRAIN = 4 << 20
_PIECE = 1 << 20
#: Superblock, s_wtime: when it was written (the kernel's Documentation/filesystems/ext4/super.rst).
_WRITTEN = 1024 + 0x30
_EXT = ("ext3", "ext4")
_PRIMARY = 4
_TOOLS = ("resize2fs", "e2fsck")
#: Of e2fsprogs. Inode tables of new groups are left to the kernel, which zeroes them while the node runs: a card of
#: 32 GB has half a GiB of them. Zeros that are needed are written out, for holes are what was not needed.
_ENVIRONMENT = {"RESIZE2FS_FORCE_LAZY_ITABLE_INIT": "1", "UNIX_IO_NOZEROOUT": "1"}


def grown(payload: Payload, size: int, scratch: Path) -> Payload:
    """The payload for a card of `size` bytes, its last partition and the ext4 in that ending where the card ends.

    It is the same bytes each time. `scratch` is a directory for a file as large as what the root has in use. A card
    with no room beyond the image takes the payload as it is. Raises `UnsupportedError` if the last partition is no
    primary one with an ext4, `ImageError` if that is not clean afterwards or an MBR cannot say where it ends,
    `WriteFailedError` when there is no room.
    """
    last = max(payload.table.partitions, key=lambda p: p.start + p.size)
    end = size // _GRAIN * _GRAIN
    if end <= last.start + last.size:
        return payload
    kind = last.filesystem.type if last.filesystem else "nothing known"
    if kind not in _EXT or last.number > _PRIMARY:
        raise UnsupportedError(
            f"`{payload.image.name}` cannot be grown: its last partition is number {last.number} and holds {kind}, and "
            "only an ext4 in a primary one, number 1 to 4, is grown",
            hint="leave `--grow` away: what the image does about it at its first boot is its own affair",
        )
    require(*_TOOLS)
    needed = payload.map.all(lambda: False)
    part = scratch / "root"
    part.unlink(missing_ok=True)
    try:
        with payload.reading() as reader, write_errors(part):
            mine = common(needed, [(last.start, last.size)])
            require_space(scratch, amount(mine))
            create(part, 0o600)  # a node's secrets are in it
            _copy(reader, part, mine, last)
            _resize(part, end - last.start)
            changed = _changed(reader, part, mine, last)
            own = [(patch.offset, len(patch.data)) for patch in payload.patches]
            ranges = joined([(0, SECTOR), *own, *changed])
            data = _contents(reader, part, ranges, last)
            patches = tuple(_patches(data, last.number, end, behind=payload.table.size))
    finally:
        part.unlink(missing_ok=True)
    return _with(payload, last, end, patches, [*needed, *changed])


def _with(
    payload: Payload, last: Partition, end: int, patches: tuple[Patch, ...], needed: Sequence[Range]
) -> Payload:
    """The payload with these patches, its partition `last` ending at `end`."""
    hasher = hashlib.sha256(f"{payload.fingerprint} grown {end}".encode())
    for patch in patches:
        hasher.update(b"%d %d\n" % (patch.offset, len(patch.data)))
        hasher.update(patch.data)
    larger, size = replace(last, size=end - last.start), max(end, payload.size)
    partitions = tuple(larger if p is last else p for p in payload.table.partitions)
    return replace(
        payload,
        size=size,
        table=replace(payload.table, partitions=partitions),
        patches=patches,
        map=Known(tuple(rounded(needed, BLOCK, size))),
        fingerprint=hasher.hexdigest(),
    )


def _copy(reader: Reader, part: Path, ranges: Sequence[Range], last: Partition) -> None:
    """What of the partition is in use, zeros too: what is a hole afterwards was not written to."""
    with part.open("r+b", buffering=0) as file:
        file.truncate(last.size)
        memory = memoryview(bytearray(_PIECE))
        for at, length in pieces(ranges, _PIECE):
            reader.read_into(at, memory[:length])
            file.seek(at - last.start)
            file.write(memory[:length])


def _resize(part: Path, size: int) -> None:
    with part.open("rb") as file:
        written = int.from_bytes(os.pread(file.fileno(), 4, _WRITTEN), "little")
    # Not the time of day: a write that goes on tomorrow has to find the same bytes.
    times = {"E2FSPROGS_FAKE_TIME": str(written or 1)}
    run(["resize2fs", "-f", part, f"{size // 1024}K"], env=_ENVIRONMENT | times)
    ext4.check(part, 0)


def _changed(reader: Reader, part: Path, mine: Sequence[Range], last: Partition) -> list[Range]:
    """Blocks of the image that resize2fs has written to, in order."""
    found: list[Range] = []
    before, after = bytearray(_PIECE), bytearray(_PIECE)
    with part.open("rb", buffering=0) as file:
        there = [(last.start + at, length) for at, length in data_ranges(file.fileno())]
        found += without(there, mine)
        for at, length in pieces(common(there, mine), _PIECE):
            reader.read_into(at, memoryview(before)[:length])
            os.preadv(file.fileno(), [memoryview(after)[:length]], at - last.start)
            if before != after:
                found += [
                    (at + step, BLOCK)
                    for step in range(0, length, BLOCK)
                    if before[step : step + BLOCK] != after[step : step + BLOCK]
                ]
    return joined(found)


def _contents(
    reader: Reader, part: Path, ranges: Sequence[Range], last: Partition
) -> Iterator[Patch]:
    """What lies in `ranges` of the image under its patches, with the grown partition in it."""
    with part.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for at, length in pieces(ranges, _PIECE):
            data = bytearray(length)
            reader.read_into(at, memoryview(data))
            for first, count in common([(at, length)], [(last.start, size)]):
                place = first - at
                data[place : place + count] = os.pread(file.fileno(), count, first - last.start)
            yield Patch(at, bytes(data))


def _patches(contents: Iterable[Patch], number: int, end: int, *, behind: int) -> Iterator[Patch]:
    """The patches, with partition `number` ending at `end` in the table; from `behind` on are zeros already."""
    for patch in contents:
        data = patch.data
        if patch.offset == 0:
            data = grown_entry(data[:SECTOR], number, end) + data[SECTOR:]
        if patch.offset < behind or any(data):
            yield Patch(patch.offset, data)
