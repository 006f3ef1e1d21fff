"""What of an image a card needs: known at once, or, where the image still arrives, as it comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from piimage.disk.bmap import mapped_bytes, mapped_in_turn
from piimage.disk.window import joined
from piimage.flash.medium import CHUNK
from piimage.flash.ranges import BLOCK, Range, amount, common, rounded, stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from piimage.disk.arriving import Arriving
    from piimage.facts import PartitionTable

#: What is waited for before it is written, at most: while one part is written, the next one arrives.
_PART = 64 << 20


class Needed(Protocol):
    """Ranges of an image, in whole blocks of 4096 bytes, in order."""

    def expected(self, start: int = 0) -> int:
        """About how many bytes they have from byte `start` on; exactly, where all are known."""

    def all(self, stopped: Callable[[], bool]) -> tuple[Range, ...]:
        """All of them; waits until they are known and can be read. Raises `KeyboardInterrupt` once `stopped()`."""

    def in_turn(self, stopped: Callable[[], bool]) -> Iterator[Sequence[Range]]:
        """All of them, in parts that can be read without waiting. Raises as `all` does."""


@dataclass(frozen=True, slots=True)
class Known:
    """Those of an image that is there."""

    ranges: tuple[Range, ...] = field(repr=False)

    def expected(self, start: int = 0) -> int:
        """How many bytes they have from byte `start` on."""
        return amount(common(self.ranges, [(start, 1 << 63)]))

    def all(self, stopped: Callable[[], bool]) -> tuple[Range, ...]:  # noqa: ARG002 -- the protocol's shape
        """At once."""
        return self.ranges

    def in_turn(self, stopped: Callable[[], bool]) -> Iterator[Sequence[Range]]:  # noqa: ARG002 -- see above
        """At once."""
        yield self.ranges


class Coming:
    """Those of an image that still arrives, `also` among them; the cards that it goes to share what became known."""

    def __init__(self, image: Arriving, table: PartitionTable, also: Sequence[Range]) -> None:
        self._image = image
        self._bytes = mapped_bytes(image, table)
        self._lock = Lock()
        self._parts: list[list[Range]] = []
        self._coming = self._read(table, also)

    def expected(self, start: int = 0) -> int:
        """As if they were spread evenly."""
        return self._bytes * max(0, self._image.size - start) // max(1, self._image.size)

    def all(self, stopped: Callable[[], bool]) -> tuple[Range, ...]:
        """All of them, once they are there."""
        return tuple(joined([each for part in self.in_turn(stopped) for each in part]))

    def in_turn(self, stopped: Callable[[], bool]) -> Iterator[Sequence[Range]]:
        """Each part once it is known and there."""
        self._image.stopped = stopped
        number = 0
        while True:
            with self._lock:
                if number == len(self._parts):
                    part = next(self._coming, None)
                    if part is None:
                        return
                    self._parts.append(part)
            part = self._parts[number]
            self._image.wait(sum(part[-1]))
            yield part
            number += 1

    def _read(self, table: PartitionTable, also: Sequence[Range]) -> Iterator[list[Range]]:
        """What is needed of the bytes that have just become known, in parts."""
        told: list[Range] = list(also)
        size, at = -(-self._image.size // BLOCK) * BLOCK, 0
        for end, ranges in chain(mapped_in_turn(self._image, table), [(size, [])]):
            told += ranges
            known = min(end // BLOCK * BLOCK, size)  # what follows may be in the same block
            if known > at:
                new = common(rounded(told, BLOCK, size), [(at, known - at)])
                yield from stretches(new, CHUNK, _PART)
                told, at = [each for each in told if sum(each) > known], known
