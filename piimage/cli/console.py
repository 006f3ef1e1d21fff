"""What a person sees: steps with amounts on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.progress import Progress, Task

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
#: Seconds between two lines about the same step where there is no terminal to redraw.
_EVERY = 15.0
#: Where a terminal does not say how wide it is (serial lines).
_COLUMNS = 80
#: To the start of the line, and nothing left on it (ECMA-48 EL).
_CLEAR = "\r\x1b[K"


def progress_for(*, json_output: bool = False, quiet: bool = False) -> Progress:
    """The right `Progress` for this stderr."""
    if quiet:
        from piimage.progress import Quiet  # noqa: PLC0415 -- start-up time

        return Quiet()
    if sys.stderr.isatty() and not json_output and os.environ.get("TERM") != "dumb":
        return Live()
    return Plain()


def human(amount: float) -> str:
    """Bytes for people: `1.4 GiB`."""
    for unit in _UNITS:
        if amount < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004 -- binary prefixes
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def colour_wanted() -> bool:
    """Colour only on a terminal, and never against NO_COLOR (no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


class _Line:
    """One step: its amounts, its note, when it began."""

    def __init__(self, title: str, show: Live | Plain) -> None:
        self.title, self._show = title, show
        self.began = time.monotonic()
        self.amount = self.done = 0
        self.text = ""

    def total(self, amount: int) -> None:
        self.amount = amount

    def advance(self, amount: int) -> None:
        self.done += amount
        self._show.update(self)

    def note(self, text: str) -> None:
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


class Plain:
    """Plain lines: one when a step begins, one now and then, one when it took long."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._depth = 0

    @contextmanager
    def step(self, title: str) -> Iterator[Task]:
        """Print the title, and the time it took if that was more than two seconds."""
        line = _Line(title, self)
        self.say(f"{'  ' * self._depth}{title}")
        self._depth += 1
        self._last = time.monotonic()
        try:
            yield line
        finally:
            self._depth -= 1
        took = time.monotonic() - line.began
        if took > 2:  # noqa: PLR2004 -- design: what takes longer shows itself
            self.say(f"{'  ' * self._depth}{title}: done in {took:.0f} s")

    def update(self, line: _Line) -> None:
        """Print how far the step is, not too often."""
        if time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            self.say(f"{'  ' * self._depth}{line.status()}")

    def say(self, text: str) -> None:
        """One line."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201 -- the place where we print

    def warn(self, text: str) -> None:
        """One line that begins with `warning:`."""
        self.say(f"warning: {text}")


class Live(Plain):
    """One line redrawn in place while a step runs."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[_Line] = []
        self._drawn = 0.0
        self._lock = RLock()  # the ticking thread draws too

    @contextmanager
    def step(self, title: str) -> Iterator[Task]:
        """Draw the step, then leave a line with a mark and the time it took."""
        line = _Line(title, self)
        with self._lock:
            self._open.append(line)
            self._draw(line)
        with _ticking(self, line):
            try:
                yield line
            except BaseException:
                with self._lock:
                    self._open.pop()
                    self._write(f"{_CLEAR}  ({title})\n")
                raise
        with self._lock:
            self._open.pop()
            self._end(line)

    def _end(self, line: _Line) -> None:
        """The line that a finished step leaves."""
        took = time.monotonic() - line.began
        mark = "\x1b[32m✓\x1b[0m" if colour_wanted() else "✓"
        self._write(f"{_CLEAR}{'  ' * len(self._open)}{mark} {line.title}  {took:.1f} s\n")
        if self._open:
            self._draw(self._open[-1])

    def update(self, line: _Line) -> None:
        """Redraw at most ten times a second."""
        with self._lock:
            if self._open and line is self._open[-1] and time.monotonic() - self._drawn > 0.1:  # noqa: PLR2004 -- seconds: ten times a second
                self._draw(line)

    def say(self, text: str) -> None:
        """Print above the line being drawn."""
        with self._lock:
            self._write(f"{_CLEAR}{text}\n")
            if self._open:
                self._draw(self._open[-1])

    def _draw(self, line: _Line) -> None:
        self._drawn = time.monotonic()
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
        text = f"{'  ' * (len(self._open) - 1)}… {line.status()}"
        self._write(_CLEAR + text[: columns - 1])

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


@contextmanager
def _ticking(show: Live, line: _Line) -> Iterator[None]:
    """Keep the seconds running while a step has nothing to say."""
    from threading import Event, Thread  # noqa: PLC0415 -- start-up time

    stop = Event()

    def tick() -> None:
        while not stop.wait(0.5):
            show.update(line)

    thread = Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
