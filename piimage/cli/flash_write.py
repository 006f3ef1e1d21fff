"""The writing of `piimage flash`: cards that were agreed to, shown while they are written, remembered when good."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.cluster import Cluster
    from piimage.errors import PiimageError
    from piimage.flash.several import Job, Result
    from piimage.flash.writer import Mode
    from piimage.progress import Progress


class _Record:
    """The state of a cluster, kept true while its cards change; of an image's cards nothing is kept."""

    def __init__(self, jobs: Sequence[Job], cluster: Cluster | None) -> None:
        self._cluster = cluster
        self._before: dict[Job, tuple[str, str] | None] = {}
        #: Whether any card is not what it was.
        self.changed = False
        if cluster:
            from piimage.flash.receipt import held_before  # noqa: PLC0415 -- start-up time

            self._before = {job: held_before(job.device.node, cluster) for job in jobs}

    def lost(self, job: Job) -> None:
        """What the card was, it will be no more; raises `PiimageError` if that cannot be recorded."""
        held = self._before.pop(job, None)
        if self._cluster and held:
            from piimage.flash.receipt import forget  # noqa: PLC0415 -- start-up time

            forget(self._cluster, held)
        self.changed = True

    def good(self, job: Job) -> None:
        """The card is what it was to become; raises `PiimageError` if that cannot be recorded."""
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
    from piimage.errors import InterruptedWriteError, PiimageError  # noqa: PLC0415 -- start-up time
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
                screen.ended(result)
                if let_go and result.outcome and not eject(result.job.device):
                    progress.say(f"{result.job.device.path} cannot let go of the card: take it out")

            results = write_all(jobs, mode=mode, begin=state.lost, notify=screen.event, ended=ended)
    except KeyboardInterrupt:
        if not state.changed:
            raise InterruptedWriteError("interrupted: nothing was written") from None
        raise InterruptedWriteError(
            "interrupted: the card is not finished and has no partition table",
            hint="the same command with `--resume` goes on where it stopped",
        ) from None
    return failure(results)
