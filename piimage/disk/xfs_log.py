"""Whether the log of an XFS file system is clean: whether all that it tells is also where it belongs.

The log is a ring of sectors of 512 bytes. Each begins with the number of the turn in which it was written, or is
the header of a record, which has that number behind its magic. Unmounting writes a record of its own, so a log
is clean when that is the newest. Layout: XFS Algorithms & Data Structures, chapter "Journaling Log"; where the
newest record ends: fs/xfs/xfs_log_recover.c of the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piimage.disk.window import Window

_SECTOR = 512
_MAGIC = b"\xfe\xed\xba\xbe"
_UNMOUNT = 0x20
_HEADER_COVERS = 32 << 10  # bytes of a record whose turns find room in one sector of its header
_VERSION_2 = 2
#: Sectors before the end in which what was written at once may have come out of order: eight buffers of 256 KiB.
_IN_FLIGHT = (8 * 256 << 10) // _SECTOR


def is_clean(source: Window, start: int, length: int) -> bool:
    """Whether the log of `length` bytes at byte `start` ends with the record of an unmount, or holds nothing."""
    ring = _Ring(source, start, length // _SECTOR)
    head = ring.head()
    if head is None:
        return True
    last = min(_IN_FLIGHT, ring.sectors)
    recent = ring.read(head - last, last)
    at = recent.rfind(_MAGIC)
    while at >= 0 and at % _SECTOR:
        at = recent.rfind(_MAGIC, 0, at + 3)
    return at >= 0 and _ends_in_unmount(recent[at:])


def _ends_in_unmount(record: bytes) -> bool:
    """Whether `record`, from its header to the newest sector of the log, is that of an unmount, and whole."""
    version, length = (int.from_bytes(record[at : at + 4], "big") for at in (8, 12))
    operations, size = (int.from_bytes(record[at : at + 4], "big") for at in (40, 320))
    header = _SECTOR
    if version & _VERSION_2 and size > _HEADER_COVERS:
        header *= -(-size // _HEADER_COVERS)
    whole = header + -(-length // _SECTOR) * _SECTOR == len(record) > header
    return whole and operations == 1 and bool(record[header + 9] & _UNMOUNT)


class _Ring:
    """The sectors of a log."""

    def __init__(self, source: Window, start: int, sectors: int) -> None:
        self._source, self._start, self.sectors = source, start, sectors

    def read(self, first: int, count: int) -> bytes:
        """`count` sectors, at most all, from sector `first` on, which may be negative: counted from the end."""
        first %= self.sectors
        here = min(count, self.sectors - first)
        data = self._source.read(self._start + first * _SECTOR, here * _SECTOR)
        if here < count:
            data += self._source.read(self._start, (count - here) * _SECTOR)
        return data

    def head(self) -> int | None:
        """The sector behind the newest one, from 0 to their number; None if none was ever written."""
        first, last = self._turn(0), self._turn(self.sectors - 1)
        if first == 0:
            return None
        if first == last:
            return self._earliest_gap(self.sectors, first)
        # Sectors of this turn come first, then those of the turn before, or never written ones.
        low, high = 0, self.sectors - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._turn(middle) == first:
                low = middle
            else:
                high = middle
        return self._earliest_gap(high, first)

    def _earliest_gap(self, head: int, turn: int) -> int:
        """`head`, or where before it a sector was not written in that turn while later ones were."""
        first = max(0, head - _IN_FLIGHT)
        recent = self.read(first, head - first)
        for at in range(0, len(recent), _SECTOR):
            if _turn_of(recent[at : at + 8]) != turn:
                return first + at // _SECTOR
        return head

    def _turn(self, sector: int) -> int:
        return _turn_of(self.read(sector, 1))


def _turn_of(sector: bytes) -> int:
    at = 4 if sector[:4] == _MAGIC else 0
    return int.from_bytes(sector[at : at + 4], "big")
