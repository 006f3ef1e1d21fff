"""What the kernel's clock leaves on a FAT, taken away again: the same files written twice give the same sectors.

Layout: Microsoft's "FAT: General Overview of On-Disk Format" 1.03, section 6; the appliance's time zone is UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from piimage.disk.fat import open_fat
from piimage.disk.slots import Patch, apply_patches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.disk.fat_reader import Fat

_RECORD = 32
_LONG_NAME, _ATTRIBUTES, _DELETED = 0x0F, 11, 0xE5
#: Of a record: tenths of seconds, time and date of its making, date of its last reading, time and date of its writing.
_TENTHS, _MADE, _READ, _WRITTEN = 13, slice(14, 18), slice(18, 20), slice(22, 26)
_EPOCH = 1980


def settle(image: Path, original: Path, start: int, *, when: int, latest: int) -> None:
    """In the FAT at byte `start` of `image`, which began as a copy of `original`, make times what files say.

    Of names that have changed, the times of making and reading become that of writing, and one that is later than
    `latest`, so of the moment, becomes `when` (both in seconds since the epoch).
    """
    with open_fat(image, start) as new, open_fat(original, start) as old:
        patches = list(_patches(new, old, _encoded(when), _encoded(latest)))
    if patches:
        apply_patches(image, patches)


def _patches(new: Fat, old: Fat, when: bytes, latest: bytes) -> Iterator[Patch]:
    clusters = [0] + [entry.cluster for _, entry in new.walk() if entry.directory]
    for cluster in clusters:
        for place, length in new.directory_places(cluster):
            mine, theirs = new.source.read(place, length), old.source.read(place, length)
            if mine == theirs:
                continue
            settled = bytearray(mine)
            for at in range(0, length, _RECORD):
                record = mine[at : at + _RECORD]
                if record != theirs[at : at + _RECORD] and _is_name(record):
                    settled[at : at + _RECORD] = _settled(record, when, latest)
            yield Patch(new.source.start + place, bytes(settled))


def _is_name(record: bytes) -> bool:
    return record[0] not in (0, _DELETED) and record[_ATTRIBUTES] & 0x3F != _LONG_NAME


def _settled(record: bytes, when: bytes, latest: bytes) -> bytes:
    found = bytearray(record)
    if _order(found[_WRITTEN]) > _order(latest):
        found[_WRITTEN] = when
    found[_TENTHS] = 0
    found[_MADE] = found[_WRITTEN]
    found[_READ] = found[_WRITTEN][2:]
    return bytes(found)


def _encoded(when: int) -> bytes:
    """Time and date as a record has them: two seconds apart, from 1980 on."""
    at = datetime.fromtimestamp(when, UTC)
    if at.year < _EPOCH:
        return b"\0\0\x21\0"  # the first day there is
    time = at.hour << 11 | at.minute << 5 | at.second // 2
    date = at.year - _EPOCH << 9 | at.month << 5 | at.day
    return time.to_bytes(2, "little") + date.to_bytes(2, "little")


def _order(stamp: bytes | bytearray) -> int:
    """Time and date as a number: the date counts more."""
    return int.from_bytes(stamp, "little")
