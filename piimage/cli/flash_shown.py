"""What `piimage flash` shows of cards under way: a line for each on a terminal, events as JSON lines for programs."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from piimage.errors import PiimageError, WriteFailedError
from piimage.progress import human

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from piimage.flash.events import Event
    from piimage.flash.several import Job, Result
    from piimage.progress import Board, Progress

_DOING = {
    "probe": "looking whether it has the room that it says",
    "compare": "comparing",
    "write": "writing",
    "verify": "reading back",
    "finish": "writing the partition table",
}


class Shown(Protocol):
    """Receives what happens to the cards; from several threads."""

    def event(self, job: Job, event: Event) -> None:
        """Something happened to a card."""

    def ended(self, result: Result) -> None:
        """A card is done, or has failed."""


class _Lines:
    """For people."""

    def __init__(self, board: Board, progress: Progress, *, hints: bool) -> None:
        self._board, self._progress, self._hints = board, progress, hints

    def event(self, job: Job, event: Event) -> None:
        name, data = str(job.device.path), event.data
        if event.kind == "phase":
            self._board.note(name, _DOING.get(data["phase"], data["phase"]))
        elif event.kind == "progress":
            self._board.note(name, _far(data))
        else:
            self._progress.warn(f"{name}: {_trouble(event)}")

    def ended(self, result: Result) -> None:
        name = str(result.job.device.path)
        if isinstance(result.error, PiimageError):
            hint = f"; {result.error.hint}" if self._hints and result.error.hint else ""
            self._board.done(name, f"{result.error.message}{hint}", ok=False)
        else:
            self._board.done(name, _result(result))


class _Json:
    """For programs: one object a line, on stdout."""

    def __init__(self) -> None:
        self._lock = Lock()

    def event(self, job: Job, event: Event) -> None:
        self._print(job, event.kind, event.data)

    def ended(self, result: Result) -> None:
        error, outcome = result.error, result.outcome
        if isinstance(error, PiimageError):
            self._print(
                result.job,
                "failed",
                {
                    "exit_code": int(error.exit_code),
                    "message": error.message,
                    "hint": error.hint,
                },
            )
        elif outcome is not None:
            self._print(
                result.job,
                "done",
                {
                    "written": outcome.written,
                    "checked": outcome.checked,
                    "rewritten": outcome.rewritten,
                    "seconds": outcome.seconds,
                    "unchanged": outcome.unchanged,
                    "build": result.job.source.build,
                    "table_seen": result.seen,
                },
            )

    def _print(self, job: Job, kind: str, data: Any) -> None:  # noqa: ANN401 -- JSON values
        line = {"event": kind, "card": str(job.device.path), "node": job.source.node, **data}
        with self._lock:
            print_event(line)


def print_event(line: Mapping[str, Any]) -> None:
    """One line of JSON on stdout; raises `WriteFailedError` where that takes it no longer."""
    try:
        print(json.dumps(line), flush=True)  # noqa: T201 -- cli prints
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise WriteFailedError(
            f"cannot write events to stdout: {words}",
            hint="what `--json` prints must go where there is room, to a program that reads it",
        ) from error


def waits(*, quiet: bool, json_output: bool) -> Callable[[str], None] | None:
    """Who tells that another piimage is waited for, where no step is shown that does."""
    if json_output:
        return lambda words: print_event({"event": "wait", "message": words})
    return (lambda words: print(words, file=sys.stderr)) if quiet else None  # noqa: T201 -- cli prints


@contextmanager
def shown(jobs: Sequence[Job], progress: Progress, *, json_output: bool) -> Iterator[Shown]:
    """Who shows the cards until the block ends."""
    if json_output:
        yield _Json()
        return
    count = len(jobs)
    title = f"writing {jobs[0].source.title}" if count == 1 else f"writing {count} cards"
    with progress.board(title, [str(job.device.path) for job in jobs]) as board:
        # The error of a single card is what the command ends with, hint and all.
        yield _Lines(board, progress, hints=count > 1)


def _far(data: Any) -> str:  # noqa: ANN401 -- an event's JSON values
    """`writing  412.0 MiB of 1.1 GiB  38.2 MiB/s  1:12 left`."""
    parts = [
        _DOING.get(data["phase"], data["phase"]),
        f"{human(data['done'])} of {human(data['total'])}",
        f"{data['done'] * 100 // max(1, data['total'])} %",
        f"{human(data['rate'])}/s",
    ]
    if data["eta"] is not None:
        minutes, seconds = divmod(round(data["eta"]), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return "  ".join(parts)


def _trouble(event: Event) -> str:
    data = event.data
    if event.kind == "slow":
        return f"the card has not answered for {data['seconds']} s; waiting"
    if event.kind == "rewrite":
        return (
            f"{data['bytes']} bytes were not as written, the first at byte {data['first']} "
            f"({data['where']}); writing them again"
        )
    return str(data.get("text", event.kind))


def _result(result: Result) -> str:
    """How a card that is good was made so."""
    outcome = result.outcome
    if outcome is None:
        return "stopped"
    if outcome.unchanged:
        return f"is {result.job.source.title} already: {human(outcome.checked)} compared"
    words = f"is {result.job.source.title}: {human(outcome.written)} written, all of it read back"
    if outcome.rewritten:
        words += f", {human(outcome.rewritten)} of it written again: keep an eye on this card"
    rate = f"{outcome.seconds:.0f} s"
    again = "" if result.seen else "; take it out and put it in before you mount it"
    return f"{words}, {rate}{again}"
