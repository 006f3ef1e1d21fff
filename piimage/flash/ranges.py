"""Sums with `(start, length)` ranges of bytes, in order and without overlap."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from piimage.disk.window import joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]
#: What the ranges of a card are rounded to.
BLOCK = 4096


def amount(ranges: Iterable[Range]) -> int:
    """Bytes in all ranges."""
    return sum(length for _, length in ranges)


def rounded(ranges: Iterable[Range], unit: int, end: int) -> list[Range]:
    """The ranges rounded outwards to multiples of `unit`, joined, and cut at byte `end`."""
    wide = [
        (start // unit * unit, -(-(start + length) // unit) * unit - start // unit * unit)
        for start, length in ranges
    ]
    return common(joined(wide), [(0, end)])


def common(one: Sequence[Range], other: Sequence[Range]) -> list[Range]:
    """What lies in both."""
    found = []
    starts = [start for start, _ in other]
    for start, length in one:
        end = start + length
        at = max(0, bisect_right(starts, start) - 1)
        while at < len(other) and other[at][0] < end:
            first, last = max(start, other[at][0]), min(end, sum(other[at]))
            if first < last:
                found.append((first, last - first))
            at += 1
    return found


def without(one: Sequence[Range], other: Sequence[Range]) -> list[Range]:
    """What lies in `one` alone."""
    if not one:
        return []
    gaps, at = [], 0
    for start, length in other:
        gaps.append((at, start - at))
        at = start + length
    gaps.append((at, max(0, max(map(sum, one)) - at)))
    return common(one, [gap for gap in gaps if gap[1] > 0])


def pieces(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """The ranges cut at every multiple of `size`."""
    for start, length in ranges:
        at, end = start, start + length
        while at < end:
            count = min(end, (at // size + 1) * size) - at
            yield at, count
            at += count


def stretches(ranges: Iterable[Range], chunk: int, size: int) -> Iterator[list[Range]]:
    """The ranges cut at every multiple of `chunk`, in groups of `size` bytes or a little more."""
    group: list[Range] = []
    for piece in pieces(ranges, chunk):
        group.append(piece)
        if amount(group) >= size:
            yield group
            group = []
    if group:
        yield group
