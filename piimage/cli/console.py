"""What a person sees: steps with amounts on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

from piimage.cli.lines import Line, Lines, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.progress import Board, Progress, Task

#: Seconds between two lines about the same step where there is no terminal to redraw.
_EVERY = 15.0
#: Where a terminal does not say how large it is (serial lines).
_COLUMNS, _ROWS = 80, 24
#: Columns left free for the `^C` that a terminal echoes, which would wrap, and the cursor.
_ECHO = 3
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


def colour_wanted() -> bool:
    """Colour only on a terminal, and never against NO_COLOR (no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


class Plain:
    """Plain lines: one when a step begins, one now and then, one when it took long."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._depth = 0
        self._lock = RLock()  # boards are told of by several threads; the ticking thread draws too

    @contextmanager
    def step(self, title: str) -> Iterator[Task]:
        """Print the title, and the time it took if that was more than two seconds."""
        line = Line(title, self)
        self.say(f"{'  ' * self._depth}{title}")
        self._depth += 1
        self._last = time.monotonic()
        try:
            yield line
        finally:
            self._depth -= 1
        took = time.monotonic() - line.began
        if took > 2:  # noqa: PLR2004 -- what takes longer says how long
            self.say(f"{'  ' * self._depth}{title}: done in {took:.0f} s")

    @contextmanager
    def board(self, title: str, names: Sequence[str]) -> Iterator[Board]:
        """Print a line now and then about each that is under way, and at once how one ended."""
        lines = Lines(title, names, self)
        self.say(f"{'  ' * self._depth}{title}")
        self._last = time.monotonic()
        yield lines
        took, words = time.monotonic() - lines.began, "failed after" if lines.failed else "done in"
        self.say(f"{'  ' * self._depth}{title}: {words} {took:.0f} s")

    def update(self, shown: Line | Lines) -> None:
        """Print how far the step is, not too often."""
        with self._lock:
            if time.monotonic() - self._last > _EVERY:
                self._last = time.monotonic()
                if isinstance(shown, Lines):
                    for name in shown.open():
                        self.say(shown.row(name))
                else:
                    self.say(f"{'  ' * self._depth}{shown.status()}")

    def ended(self, shown: Lines, name: str) -> None:
        """Print it."""
        self.say(shown.row(name))

    def say(self, text: str) -> None:
        """One line, in one piece whoever else speaks."""
        with self._lock:
            _put(f"{visible(text, lines=True)}\n")

    def warn(self, text: str) -> None:
        """One line that begins with `warning:`."""
        self.say(f"warning: {text}")


class Live(Plain):
    """The innermost step redrawn in place while it runs: one line, or one for each of several things."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[Line | Lines] = []
        self._drawn = 0.0
        self._height = 1

    @contextmanager
    def step(self, title: str) -> Iterator[Task]:
        """Draw the step, then leave a line with a mark and the time it took."""
        line = Line(title, self)
        with self._shown(line):
            yield line

    @contextmanager
    def board(self, title: str, names: Sequence[str]) -> Iterator[Board]:
        """Draw a line for each, and leave them as they ended."""
        lines = Lines(title, names, self)
        with self._shown(lines):
            yield lines

    @contextmanager
    def _shown(self, shown: Line | Lines) -> Iterator[None]:
        with self._lock:
            self._open.append(shown)
            self._draw(shown)
        with _ticking(self, shown):
            try:
                yield
            except BaseException:
                with self._lock:
                    self._open.pop()
                    self._leave([f"  ({shown.title})", *_rows(shown)])
                raise
        with self._lock:
            self._open.pop()
            took = time.monotonic() - shown.began
            failed = isinstance(shown, Lines) and shown.failed
            mark, colour = ("✗", 31) if failed else ("✓", 32)
            mark = f"\x1b[{colour}m{mark}\x1b[0m" if colour_wanted() else mark
            indent = "  " * len(self._open)
            self._leave([f"{indent}{mark} {shown.title}  {took:.1f} s", *_rows(shown)])
            if self._open:
                self._draw(self._open[-1])

    def update(self, shown: Line | Lines) -> None:
        """Redraw at most ten times a second."""
        with self._lock:
            if (
                self._open and shown is self._open[-1] and time.monotonic() - self._drawn > 0.1  # noqa: PLR2004 -- seconds: ten times a second
            ):
                self._draw(shown)

    def ended(self, shown: Lines, name: str) -> None:  # noqa: ARG002 -- as `Plain`
        """Its line is there already."""
        self.update(shown)

    def say(self, text: str) -> None:
        """Print above what is being drawn."""
        with self._lock:
            self._leave([visible(text, lines=True)])
            if self._open:
                self._draw(self._open[-1])

    def _draw(self, shown: Line | Lines) -> None:
        self._drawn = time.monotonic()
        columns, lines = _terminal()
        most = max(1, lines - 1)
        indent = "  " * (len(self._open) - 1)
        rows = [f"{indent}{row}"[: max(1, columns - _ECHO)] for row in shown.rows(most)]
        _put(self._erased() + "\n".join(rows))
        self._height = len(rows)

    def _leave(self, rows: Sequence[str]) -> None:
        """Lines that stay, in the place of what was drawn."""
        _put(self._erased() + "".join(f"{row}\n" for row in rows))

    def _erased(self) -> str:
        """What takes away all that was drawn (ECMA-48 CUU, ED)."""
        up, self._height = self._height - 1, 1
        return f"\r\x1b[{up}A\x1b[J" if up else _CLEAR


def _put(text: str) -> None:
    """Show it, unless the terminal is gone: that is no failure of what is shown, and SIGHUP tells of it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def _terminal() -> tuple[int, int]:
    """Columns and lines."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except OSError:  # it is gone
        return _COLUMNS, _ROWS
    return size.columns or _COLUMNS, size.lines or _ROWS


def _rows(shown: Line | Lines) -> list[str]:
    """The lines of single names, which stay."""
    return [shown.row(name) for name in shown] if isinstance(shown, Lines) else []


@contextmanager
def _ticking(show: Live, shown: Line | Lines) -> Iterator[None]:
    """Keep the seconds running while a step has nothing to say."""
    from threading import Event, Thread  # noqa: PLC0415 -- start-up time

    stop = Event()

    def tick() -> None:
        while not stop.wait(0.5):
            show.update(shown)

    thread = Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
