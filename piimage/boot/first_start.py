"""The first start of a card that has a script in init's place, which ends with a restart of the board.

Raspberry Pi OS up to bookworm does so (`init=` on its command line): the script takes itself out of cmdline.txt. What
the firmware would boot next is therefore read from the card as it is by then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.boot import card, place, qemu
from piimage.boot.disk import Disk
from piimage.errors import RehearsalError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from piimage.boot.machine import Parts
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


def settled(
    parts: Parts,
    argv: Callable[[Parts], Sequence[str]],
    record: Rehearsal,
    *,
    nudge: str | None,
    limit: float,
    progress: Progress,
) -> Parts:
    """What the card is started from: as it is, or as its first start leaves it, which is played then.

    `argv` is the whole command for such parts, `nudge` as in `qemu.start`. Raises `RehearsalError` when the restart
    does not come within `limit` seconds, and what `left` raises.
    """
    if not needed(parts.cmdline):
        return parts
    messages = record.console.with_name(place.MESSAGES)
    with (
        progress.step(f"the first start of {record.node}, which ends by itself") as task,
        qemu.start(argv(parts), record.console, messages, nudge=nudge) as vm,
    ):
        took = vm.await_end(limit=limit, task=task)
    return left(parts, record, took)


def left(parts: Parts, record: Rehearsal, took: float) -> Parts:
    """What a card is started from next, whose first start has ended after `took` seconds.

    That is with the command line that it left, and the additions; the record has it too, and the console is put beside
    that of the next start. Raises `RehearsalError` when the script would run once more.
    """
    record.timings["first_start"] = round(took, 1)
    raw = parts.disk.with_suffix(".raw")
    run(["qemu-img", "convert", "-q", "-f", "qcow2", "-O", "raw", parts.disk, raw])
    cmdline = card.read_card(Disk(image=raw, build=None)).cmdline
    raw.unlink()
    if needed(cmdline):
        raise RehearsalError(
            f"the first start of `{record.node}` ended, and cmdline.txt still has its script: it would run for ever",
            hint=f"the console is in {record.console}",
        )
    record.console.replace(record.console.with_name("console-first.log"))
    record.cmdline = " ".join([cmdline, *record.additions])
    return replace(parts, cmdline=record.cmdline)
