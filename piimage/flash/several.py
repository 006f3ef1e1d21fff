"""Several cards at once, each in a thread of its own: none waits for another, and none fails with another."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING

from piimage.errors import PiimageError, SomeFailedError
from piimage.flash.hold import hold
from piimage.flash.writer import write_card

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from piimage.flash.device import Device
    from piimage.flash.events import Event
    from piimage.flash.sources import Source
    from piimage.flash.writer import Mode, Outcome


#: Seconds that the cards get to stop in order, whoever is impatient.
_STOPPING = 30.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Job:
    """One card to write: it was examined and admitted before."""

    device: Device
    source: Source


@dataclass(slots=True)
class Result:
    """How a job ended: with an `outcome` or an `error`. `seen`: the kernel has read the new partition table."""

    job: Job
    outcome: Outcome | None = None
    error: BaseException | None = None
    seen: bool = True


def write_all(
    jobs: Sequence[Job],
    *,
    mode: Mode,
    begin: Callable[[Job], None],
    notify: Callable[[Job, Event], None],
    ended: Callable[[Result], None],
) -> list[Result]:
    """Write all cards; `begin`, `notify` and `ended` are called from their threads.

    `begin` comes before anything of the card is changed: what it raises is the card's error, and the card is as it was.

    Raises `KeyboardInterrupt` once all have stopped: a further one is heard only if that takes long, since a card
    whose partition table is being proven must lose it first. A failure of ours, no `PiimageError`, is raised too.
    """
    stop = Flag()
    results = [Result(job) for job in jobs]
    over = [Flag() for _ in jobs]

    def work(result: Result, over: Flag) -> None:
        try:
            _write(result, mode, begin, notify, stop)
        except BaseException as error:  # noqa: BLE001 -- kept for the caller's thread
            result.error = error
        if not isinstance(result.error, KeyboardInterrupt):
            try:
                ended(result)
            except BaseException as error:  # noqa: BLE001 -- as above; the first one counts
                result.error = result.error or error
        over.set()

    try:
        with _undisturbed():
            for each in zip(results, over, strict=True):
                Thread(target=work, args=each, daemon=True).start()
        _wait(over)
    except BaseException:
        stop.set()
        _wait_stopping(over)
        raise
    for result in results:
        if result.error is not None and not isinstance(result.error, PiimageError):
            raise result.error
    return results


def failure(results: Sequence[Result]) -> PiimageError | None:
    """The error of it all: a card's own if all failed alike, `SomeFailedError` else; None if none failed."""
    errors = [result.error for result in results if isinstance(result.error, PiimageError)]
    if not errors:
        return None
    codes = {error.exit_code for error in errors}
    if len(errors) == len(results) == 1:
        return errors[0]
    failed = [str(r.job.device.path) for r in results if r.error is not None]
    some = SomeFailedError(f"{len(failed)} of {len(results)} cards failed: {', '.join(failed)}")
    if len(errors) == len(results) and len(codes) == 1:
        some.exit_code = codes.pop()  # type: ignore[misc]  # this one error only: all cards failed in one way
    return some


def _write(
    result: Result,
    mode: Mode,
    begin: Callable[[Job], None],
    notify: Callable[[Job, Event], None],
    stop: Flag,
) -> None:
    job, size = result.job, result.job.device.size
    with hold(job.device) as held:
        if job.device.is_file and size < job.source.payload.size:
            size = job.source.payload.size
            os.ftruncate(held.fd, size)
        result.outcome = write_card(
            held.fd,
            size,
            job.source.payload,
            title=job.source.title,
            mode=mode,
            probed=not job.device.is_file,
            begin=lambda: begin(job),
            notify=lambda event: notify(job, event),
            proof=job.source.proof,
            stop=stop,
        )
        result.seen = held.reread_table()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No signal is heard in the block: all threads begin, or none. Theirs is the same mask, so that this one hears."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(over: Sequence[Flag]) -> None:
    """Until all threads are over. Not by `join`: one that is interrupted holds its thread for ended (bpo-45274)."""
    for flag in over:
        while not flag.wait(0.2):
            pass


def _wait_stopping(over: Sequence[Flag]) -> None:
    until = time.monotonic() + _STOPPING
    while True:
        try:
            _wait(over)
        except KeyboardInterrupt:
            if time.monotonic() > until:
                raise
        else:
            return
