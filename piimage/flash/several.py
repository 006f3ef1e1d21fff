"""Several cards at once, each in a thread of its own: none waits for another, and none fails with another."""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING

from piimage.errors import PiimageError, SomeFailedError
from piimage.flash.hold import hold
from piimage.flash.writer import write_card

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from piimage.flash.device import Device
    from piimage.flash.events import Event
    from piimage.flash.sources import Source
    from piimage.flash.writer import Mode, Outcome


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

    Raises `KeyboardInterrupt` once all have stopped. A failure of ours, which is no `PiimageError`, is raised too.
    """
    stop = Flag()
    results = [Result(job) for job in jobs]

    def work(result: Result) -> None:
        try:
            _write(result, mode, begin, notify, stop)
        except BaseException as error:  # noqa: BLE001 -- kept for the caller's thread
            result.error = error
        if not isinstance(result.error, KeyboardInterrupt):
            ended(result)

    threads = [Thread(target=work, args=(result,), daemon=True) for result in results]
    for thread in threads:
        thread.start()
    try:
        _join(threads)
    except BaseException:
        stop.set()
        _join(threads)
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


def _join(threads: Sequence[Thread]) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
