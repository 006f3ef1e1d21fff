"""A rehearsal of one node from start to end: its disk on an overlay, a boot, the questions, the power button."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.boot import access_point, card, first_start, machine, place, qemu, stage, steps, wiring
from piimage.boot.machine import Machine
from piimage.boot.qemu import SilentError
from piimage.errors import RehearsalError
from piimage.run import require

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from piimage.boot.card import Card
    from piimage.boot.guest import Access
    from piimage.boot.machine import Parts
    from piimage.boot.qemu import Vm
    from piimage.boot.report import Rehearsal
    from piimage.boot.stage import Stage
    from piimage.emulator import Accel

    Hold = Callable[[Access | None, Vm], None]

#: Seconds without a word after which QEMU's `raspi3b` has stopped for good and is started once more.
_SILENCE = 240


def rehearse(stage_: Stage, output: Path, *, hold: Hold | None = None) -> Rehearsal:
    """Rehearse a node; console and `report.json` stay in `place.directory`.

    `hold` is called while the node runs, after the questions; without it the node is switched off at once.
    A node that does not come up or breaks a promise is a result like any other: `Rehearsal.check` raises.
    Raises `PiimageError` for a disk that cannot be started at all.
    """
    require("qemu-system-aarch64", "qemu-img", "ssh")
    options = stage_.options
    home = place.directory(output, stage_.node, options.machine)
    with place.alone(home), place.scratch(home) as scratch:
        found = card.read_card(stage_.disk)
        accel = stage.accelerate(options.machine, stage_.progress)
        record = stage.begin(stage_, found, accel, home)
        added = " ".join(record.additions)
        stage_.progress.say(f"added to the card's command line for the rehearsal: {added}")
        try:
            _perform(stage_, found, accel, record, scratch, hold)
        except RehearsalError as error:
            record.error = error.message
        except BaseException:
            record.error = "the rehearsal was broken off"
            raise
        finally:
            record.write(home / place.REPORT)
        return record


def _perform(  # noqa: PLR0917 -- each is of a type of its own
    stage_: Stage, found: Card, accel: Accel, record: Rehearsal, scratch: Path, hold: Hold | None
) -> None:
    """Boot, ask, switch off; a `raspi3b` that falls silent is started once more, and the report says so."""
    cmdline = record.cmdline
    try:
        _once(stage_, found, accel, record, scratch, hold)
    except SilentError as error:
        if stage_.options.machine is not Machine.RASPI3B:
            raise
        record.silent = error.message.partition("\n")[0]
        record.console.replace(record.console.with_name("console-silent.log"))
        record.cmdline = cmdline  # on a fresh overlay no first start has left another
        stage_.progress.warn(f"{record.silent}; QEMU's `raspi3b` does that now and then: once more")
        _once(stage_, found, accel, record, scratch, hold)


def _once(  # noqa: PLR0917 -- each is of a type of its own
    stage_: Stage, found: Card, accel: Accel, record: Rehearsal, scratch: Path, hold: Hold | None
) -> None:
    """One start from a fresh overlay to the power button; what is found goes into `record`."""
    options, progress, name = stage_.options, stage_.progress, stage_.node.name
    virt = options.machine is Machine.VIRT
    net = wiring.wire(stage_.cluster, stage_.node, *place.free_ports(1)) if virt else None
    parts = steps.parts(found, options.machine, record, scratch)
    more = [] if stage_.radio is None else access_point.arguments(stage_.radio, scratch)
    nudge = None if virt else machine.NUDGE

    def argv(parts: Parts) -> list[str]:
        return machine.argv(options.machine, parts, accel, options.memory, net) + more

    parts = first_start.settled(
        parts, argv, record, nudge=nudge, limit=options.timeout, progress=progress
    )
    messages = record.console.with_name(place.MESSAGES)
    with qemu.start(argv(parts), record.console, messages, nudge=nudge) as vm:
        if options.unplugged:
            vm.plug(wiring.WIRE, into=False)
        with progress.step(f"booting {name} on `{options.machine}`") as task:
            silence = None if virt else _SILENCE
            took = vm.await_login(name, limit=options.timeout, task=task, silence=silence)
        steps.came_up(record, took)
        if options.unplugged:
            vm.plug(wiring.WIRE, into=True)
        way = None
        if net is not None:
            way = steps.access(stage_, net, record)
            with progress.step(f"asking {name} from inside"):
                steps.ask(stage_, way, net, vm, record, baked_machine_id=found.machine_id)
                steps.ask_radio(stage_, way, vm, record, patience=steps.patience(accel))
        if hold is not None:
            hold(way, vm)
        if net is not None and vm.running:
            _switch_off(stage_, accel, vm, record)


def _switch_off(stage_: Stage, accel: Accel, vm: Vm, record: Rehearsal) -> None:
    """The power button; a node that does not obey is a finding like any other."""
    limit = steps.power_limit(accel)
    with stage_.progress.step(f"switching {stage_.node.name} off") as task:
        try:
            took: float | str = vm.power_down(limit=limit, task=task)
        except RehearsalError as error:
            took = error.message
    steps.switched_off(record, limit, took)
