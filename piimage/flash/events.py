"""What a write tells while it goes on: phases, amounts, rate, time left; and what went wrong and was mended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Seconds between two events about the same phase.
_EVERY = 0.25
#: Seconds over which a rate is smoothed.
_SMOOTH = 5.0
#: How many times faster a card is read than written, until it is known.
_READ_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is `phase`, `progress`, `slow`, `retry` or `rewrite`; `data` are plain JSON values."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Meter:
    """Counts bytes over the phases `compare`, `write` and `verify`, and tells of them."""

    def __init__(
        self, notify: Callable[[Event], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._notify, self._clock = notify, clock
        self._left: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._phase, self._moved, self._since, self._told = "", 0, clock(), 0.0
        self.done = 0

    def expect(self, **amounts: int) -> None:
        """Say how many bytes each phase will move."""
        self._left.update(amounts)

    def begin(self, phase: str) -> None:
        """A phase begins."""
        self._phase, self._moved, self._since, self._told = phase, 0, self._clock(), 0.0
        self._notify(Event("phase", {"phase": phase, "bytes": self._left.get(phase, 0)}))

    def add(self, count: int) -> None:
        """So many bytes more."""
        now = self._clock()
        self.done += count
        self._moved += count
        self._left[self._phase] = max(0, self._left.get(self._phase, 0) - count)
        span = now - self._since
        if span > 0:
            self._smooth(self._moved / span, span)
        if now - self._told >= _EVERY or not self._left[self._phase]:
            self._told = now
            self._notify(Event("progress", self._state()))

    def _smooth(self, rate: float, span: float) -> None:
        """Weigh the last seconds more: cards slow down once their fast cache is full."""
        old = self._rates.get(self._phase)
        if old is None or span < _SMOOTH:
            self._rates[self._phase] = rate
        else:
            self._rates[self._phase] = (old + rate) / 2
            self._moved, self._since = 0, self._clock()

    def _state(self) -> dict[str, Any]:
        left = sum(self._left.values())
        return {
            "phase": self._phase,
            "done": self.done,
            "total": self.done + left,
            "rate": round(self._rates.get(self._phase, 0.0)),
            "eta": self._eta(),
        }

    def _eta(self) -> float | None:
        """Seconds left over all phases; None while nothing is known."""
        write = self._rates.get("write")
        read = self._rates.get("verify") or self._rates.get("compare")
        write = write or (read and read / _READ_FACTOR)
        read = read or (write and write * _READ_FACTOR)
        if not write or not read:
            return None
        reads = self._left.get("verify", 0) + self._left.get("compare", 0)
        return round(self._left.get("write", 0) / write + reads / read, 1)
