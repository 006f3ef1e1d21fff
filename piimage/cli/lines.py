"""What a step has to show: one line for a plain one, one for each name where several things are done at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_DONE, _FAILED, _OPEN = "✓", "✗", "…"


class Show(Protocol):
    """Who draws."""

    def update(self, shown: Line | Lines) -> None:
        """Something changed: draw it, unless that was done a moment ago."""

    def ended(self, shown: Lines, name: str) -> None:
        """One of several came to its end."""


def human(amount: float) -> str:
    """Bytes for people: `1.4 GiB`."""
    for unit in _UNITS:
        if amount < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004 -- binary prefixes
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


class Line:
    """One step: its amounts, its note, when it began."""

    def __init__(self, title: str, show: Show) -> None:
        self.title, self._show = title, show
        self.began = time.monotonic()
        self.amount = self.done = 0
        self.text = ""

    def total(self, amount: int) -> None:
        """How much there is to do."""
        self.amount = amount

    def advance(self, amount: int) -> None:
        """So much more is done."""
        self.done += amount
        self._show.update(self)

    def note(self, text: str) -> None:
        """What is being done now."""
        self.text = text
        self._show.update(self)

    def status(self) -> str:
        """Title, how far, how long."""
        parts = [self.title]
        if self.done:
            far = f"{human(self.done)} of {human(self.amount)}" if self.amount else human(self.done)
            parts.append(far)
            if self.amount:
                parts.append(f"{min(100, self.done * 100 // self.amount)} %")
        elif self.text:
            parts.append(self.text)
        parts.append(f"{time.monotonic() - self.began:.0f} s")
        return "  ".join(parts)

    def rows(self, most: int) -> list[str]:  # noqa: ARG002 -- as `Lines`, which may have many
        """The line as it is drawn."""
        return [f"{_OPEN} {self.status()}"]


class Lines:
    """A step with a line for each name: what it is doing, or how it ended."""

    def __init__(self, title: str, names: Sequence[str], show: Show) -> None:
        self.title, self._show = title, show
        self.began = time.monotonic()
        self._width = max(map(len, names), default=0)
        self._text = dict.fromkeys(names, "")
        self._ended: dict[str, str] = {}

    def note(self, name: str, text: str) -> None:
        """What this one is doing now."""
        if self._text[name] != text:
            self._text[name] = text
            self._show.update(self)

    def done(self, name: str, text: str, *, ok: bool = True) -> None:
        """How this one ended."""
        self._text[name] = text
        self._ended[name] = _DONE if ok else _FAILED
        self._show.ended(self, name)

    def status(self) -> str:
        """Title, how many have ended, how long."""
        took = time.monotonic() - self.began
        return f"{self.title}  {len(self._ended)} of {len(self._text)}  {took:.0f} s"

    def row(self, name: str) -> str:
        """The line of one name."""
        return f"  {self._ended.get(name, _OPEN)} {name:{self._width}}  {self._text[name]}".rstrip()

    def __iter__(self) -> Iterator[str]:
        return iter(self._text)

    def open(self) -> Iterator[str]:
        """Names that have not ended."""
        return (name for name in self._text if name not in self._ended)

    def rows(self, most: int) -> list[str]:
        """Status and a line each, those under way first where there are more than `most`."""
        head = f"{_OPEN} {self.status()}"
        names = list(self._text)
        if len(names) < most:
            return [head, *map(self.row, names)]
        chosen = sorted(names, key=lambda name: name in self._ended)[: max(0, most - 2)]
        return [head, *map(self.row, chosen), f"    and {len(names) - len(chosen)} more"]
