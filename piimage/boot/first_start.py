"""The first start of a card that has a script in init's place, which ends with a restart of the board.

Raspberry Pi OS up to bookworm does so (`init=` on its command line): the script takes itself out of cmdline.txt. What
the firmware would boot next is therefore read from the card as it is by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.boot import card, place, qemu
from piimage.boot.disk import Disk
from piimage.errors import RehearsalError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from piimage.boot.report import Rehearsal
    from piimage.progress import Progress

#: raspberrypi-sys-mods from 2022-09 on, raspi-config before.
_SCRIPTS = (
    "init=/usr/lib/raspberrypi-sys-mods/firstboot",
    "init=/usr/lib/raspi-config/init_resize.sh",
)


def needed(cmdline: str) -> bool:
    """Whether a card with this command line restarts once by itself."""
    return not set(_SCRIPTS).isdisjoint(cmdline.split())


def play(
    argv: Sequence[str],
    disk: Path,
    record: Rehearsal,
    *,
    nudge: str | None,
    limit: float,
    progress: Progress,
) -> str:
    """Start the machine of `argv` and wait until the node restarts; its next command line, with the additions.

    `disk` is its overlay, `nudge` as in `qemu.start`. The console of a start that went well is put beside that of
    the next. Raises `RehearsalError` when the restart does not come within `limit` seconds, or the script would run
    once more.
    """
    messages = record.console.with_name(place.MESSAGES)
    with (
        progress.step(f"the first start of {record.node}, which ends by itself") as task,
        qemu.start(argv, record.console, messages, nudge=nudge) as vm,
    ):
        record.timings["first_start"] = round(vm.await_end(limit=limit, task=task), 1)
    raw = disk.with_suffix(".raw")
    run(["qemu-img", "convert", "-q", "-f", "qcow2", "-O", "raw", disk, raw])
    left = card.read_card(Disk(image=raw, build=None)).cmdline
    raw.unlink()
    if needed(left):
        raise RehearsalError(
            f"the first start of `{record.node}` ended, and cmdline.txt still has its script: it would run for ever",
            hint=f"the console is in {record.console}",
        )
    record.console.replace(record.console.with_name("console-first.log"))
    return " ".join([left, *record.additions])
