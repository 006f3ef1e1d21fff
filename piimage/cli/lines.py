"""What a step has to show: one line for a plain one, one for each name where several things are done at once."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from piimage.progress import human

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Seconds: between marks, that a rate looks back, before it is told.
_MARK, _WINDOW, _WORTH_SAYING = 0.2, 8.0, 1.0
_DONE, _FAILED, _OPEN = "✓", "✗", "…"


class Show(Protocol):
    """Who draws."""

    def update(self, shown: Line | Lines) -> None:
        """Something changed: draw it, unless that was done a moment ago."""

    def ended(self, shown: Lines, name: str) -> None:
        """One of several came to its end."""


def visible(text: str, *, lines: bool = False) -> str:
    """Text for a terminal, with all that is no printable character escaped: names of files and cards may hold it.

    With `lines` line ends stay, but for those between backquotes, which are part of a name.
    """
    parts = text.split("`")
    return "`".join(
        "".join(
            char
            if char.isprintable() or (char == "\n" and lines and number % 2 == 0)
            else char.encode("unicode_escape").decode()
            for char in part
        )
        for number, part in enumerate(parts)
    )


def span(seconds: float) -> str:
    """A time for people: `40 s`, `3:05`, `1:02:05`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 -- a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Rate:
    """How fast amounts grow, over the last seconds: what was there at the start does not count."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, amount: int, now: float) -> None:
        """So much is there at this time, in seconds."""
        marks = self._marks
        if marks and amount < marks[-1][1]:
            marks.clear()
        if not marks or now - marks[-1][0] >= _MARK:
            marks.append((now, amount))
        while len(marks) > 2 and now - marks[1][0] > _WINDOW:  # noqa: PLR2004 -- a rate has two ends
            marks.popleft()

    def per_second(self, now: float) -> float:
        """The rate, falling where nothing comes; 0 until there is one worth saying."""
        if not self._marks or now - self._marks[0][0] < _WORTH_SAYING:
            return 0.0
        (began, first), (_, last) = self._marks[0], self._marks[-1]
        return (last - first) / (now - began)


class Line:
    """One step: its amounts, its note, when it began."""

    def __init__(self, title: str, show: Show) -> None:
        self.title, self._show = visible(title), show
        self.began = time.monotonic()
        self.amount = self.done = 0
        self.text = ""
        self._rate = Rate()

    def total(self, amount: int) -> None:
        """How much there is to do."""
        self.amount = amount

    def advance(self, amount: int) -> None:
        """So much more is done; less, where it begins again."""
        self.done += amount
        self._rate.mark(self.done, time.monotonic())
        self._show.update(self)

    def note(self, text: str) -> None:
        """What is being done now."""
        self.text = visible(text)
        self._show.update(self)

    def status(self) -> str:
        """Title, how far, how fast, how long still and so far."""
        parts = [self.title]
        if self.done:
            far = f"{human(self.done)} of {human(self.amount)}" if self.amount else human(self.done)
            parts.append(far)
            if self.amount:
                parts.append(f"{min(100, self.done * 100 // self.amount)} %")
            rate = self._rate.per_second(time.monotonic())
            if rate:
                parts.append(f"{human(rate)}/s")
                if self.amount > self.done:
                    parts.append(f"{span((self.amount - self.done) / rate)} left")
        if self.text:
            parts.append(self.text)
        parts.append(f"{time.monotonic() - self.began:.0f} s")
        return "  ".join(parts)

    def rows(self, most: int) -> list[str]:  # noqa: ARG002 -- as `Lines`, which may have many
        """The line as it is drawn."""
        return [f"{_OPEN} {self.status()}"]


class Lines:
    """A step with a line for each name: what it is doing, or how it ended."""

    def __init__(self, title: str, names: Sequence[str], show: Show) -> None:
        self.title, self._show = visible(title), show
        self.began = time.monotonic()
        self._width = max((len(visible(name)) for name in names), default=0)
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

    @property
    def failed(self) -> bool:
        """Whether any of them ended badly."""
        return _FAILED in self._ended.values()

    def status(self) -> str:
        """Title, how many have ended, how long."""
        took = time.monotonic() - self.began
        return f"{self.title}  {len(self._ended)} of {len(self._text)}  {took:.0f} s"

    def row(self, name: str) -> str:
        """The line of one name."""
        mark, text = self._ended.get(name, _OPEN), visible(self._text[name])
        return f"  {mark} {visible(name):{self._width}}  {text}".rstrip()

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
