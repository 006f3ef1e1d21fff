"""The writing of `piimage flash`: cards that were agreed to, shown while they are written, remembered when good."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.errors import InterruptedWriteError, PiimageError
    from piimage.flash.several import Job, Result
    from piimage.flash.writer import Mode
    from piimage.progress import Progress


class _Record:
    """The state of a cluster, kept true while its cards change; of an image's cards nothing is kept."""

    def __init__(self, jobs: Sequence[Job], cluster: Cluster | None) -> None:
        self._cluster = cluster
        self._before: dict[Job, tuple[str, str] | None] = {}
        #: Cards that are not what they were, and those that are what they were to become.
        self.begun: set[Path] = set()
        self.done: set[Path] = set()
        if cluster:
            from piimage.flash.receipt import held_before  # noqa: PLC0415 -- start-up time

            self._before = {job: held_before(job.device.node, cluster) for job in jobs}

    def lost(self, job: Job) -> None:
        """What the card was, it will be no more; raises `PiimageError` if that cannot be recorded."""
        held = self._before.pop(job, None)
        if self._cluster and held:
            from piimage.flash.receipt import forget  # noqa: PLC0415 -- start-up time

            forget(self._cluster, held)
        self.begun.add(job.device.path)

    def good(self, job: Job) -> None:
        """The card is what it was to become; raises `PiimageError` if that cannot be recorded."""
        self.done.add(job.device.path)
        if self._cluster:
            from piimage.flash.receipt import remember  # noqa: PLC0415 -- start-up time

            remember(job, self._cluster)


def write(
    jobs: Sequence[Job],
    mode: Mode,
    progress: Progress,
    cluster: Cluster | None,
    *,
    json_output: bool,
    let_go: bool = False,
) -> PiimageError | None:
    """Write them, and with `let_go` eject those that are good; the error of it all, if there is one.

    Raises `InterruptedWriteError`.
    """
    from piimage.cli.flash_shown import shown  # noqa: PLC0415 -- start-up time
    from piimage.errors import PiimageError, WriteFailedError  # noqa: PLC0415 -- start-up time
    from piimage.flash.eject import eject  # noqa: PLC0415 -- start-up time
    from piimage.flash.several import failure, write_all  # noqa: PLC0415 -- start-up time

    state = _Record(jobs, cluster)
    try:
        with shown(jobs, progress, json_output=json_output) as screen:

            def ended(result: Result) -> None:
                if result.outcome:
                    try:
                        state.good(result.job)
                    except PiimageError as error:
                        progress.warn(f"the card is good, but is not recorded: {error.message}")
                try:
                    screen.ended(result)
                except WriteFailedError as error:
                    if result.outcome:
                        error.message += "; the card is whole and proven"
                    raise
                if let_go and result.outcome and not eject(result.job.device):
                    progress.say(f"{result.job.device.path} cannot let go of the card: take it out")

            results = write_all(jobs, mode=mode, begin=state.lost, notify=screen.event, ended=ended)
    except KeyboardInterrupt:
        raise _interrupted(state, alone=len(jobs) == 1) from None
    return failure(results)


def _interrupted(state: _Record, *, alone: bool) -> InterruptedWriteError:
    """What the cards are now. One that could not take its table back has told that itself."""
    from piimage.errors import InterruptedWriteError  # noqa: PLC0415 -- start-up time

    open_ = sorted(str(path) for path in state.begun - state.done)
    whole = ", ".join(f"`{path}`" for path in sorted(state.done))
    good = f"; {whole} {'is' if len(state.done) == 1 else 'are'} whole and proven" if whole else ""
    if not open_:
        return InterruptedWriteError(f"interrupted{good or ': nothing was written'}")
    names = "the card" if alone else ", ".join(f"`{path}`" for path in open_)
    one = len(open_) == 1
    words = "is not finished and has" if one else "are not finished and have"
    return InterruptedWriteError(
        f"interrupted: {names} {words} no partition table{good}",
        hint="the same command with `--resume` goes on where it stopped",
    )
