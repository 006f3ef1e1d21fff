"""The steps of a node's rehearsal, alone or in company: put together, ask from inside, judge the power button."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from piimage.boot import card, checks, guest, machine, qemu, radio
from piimage.boot.checks import Finding

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.boot.card import Card
    from piimage.boot.guest import Access
    from piimage.boot.machine import Machine, Parts
    from piimage.boot.qemu import Vm
    from piimage.boot.report import Rehearsal
    from piimage.boot.stage import Stage
    from piimage.boot.wiring import Wire
    from piimage.components.contribution import Check
    from piimage.emulator import Accel

#: Seconds in which a node must be off after its power button was pressed (docs/adr/0007: dead servers included).
_POWER_OFF = 120
_EMULATED = 3
#: Seconds in which ssh must let us in once the console shows a login prompt.
REACH = 240


def parts(found: Card, machine_: Machine, record: Rehearsal, scratch: Path) -> Parts:
    """The card's own kernel, initrd and device tree beside an overlay over its image."""
    layout = found.layout
    dtb = None
    if machine_ is machine.Machine.RASPI3B:
        name = card.device_tree(layout.dtbs, machine.DEVICE_TREES)
        dtb = card.extract(found, name, scratch)
    disk = scratch / "card.qcow2"
    qemu.overlay(found.disk, disk, record.disk_size)
    return machine.Parts(
        kernel=card.extract(found, layout.kernel, scratch),
        initrd=card.extract(found, layout.initrd, scratch) if layout.initrd else None,
        dtb=dtb,
        cmdline=record.cmdline,
        disk=disk,
        console=record.console,
    )


def came_up(record: Rehearsal, seconds: float) -> None:
    """The login prompt came."""
    record.timings["login"] = round(seconds, 1)
    prompt = f"{record.node} login:"
    record.findings.append(Finding("login prompt", True, prompt, prompt))


def access(stage: Stage, net: Wire, record: Rehearsal) -> Access:
    """How to log in with the cluster's key; the files for it lie beside the console."""
    return guest.write_access(
        record.console.parent,
        name=stage.node.name,
        user=stage.cluster.users[0].name,
        port=net.port,
        identity=stage.state.path / "id",
        ca_public=(stage.state.path / "ca.pub").read_text(encoding="utf-8"),
    )


def ask(
    stage: Stage,
    way: Access,
    net: Wire,
    vm: Vm,
    record: Rehearsal,
    *,
    baked_machine_id: str,
    more: tuple[Check, ...] = (),
    alone: bool = True,
) -> None:
    """Take the node's facts, judge them; `asked` is when, by our clock. Raises `RehearsalError`.

    With `alone`, checks that need the other nodes are left out, and said to be.
    """
    options, asked = stage.options, (*stage.asked, *more)
    users = [user.name for user in stage.cluster.users]
    text = guest.program(users, asked, options.timeout, alone=alone)
    began, first = vm.seconds, time.time()
    said = guest.ask(way, text, vm, reach=REACH * options.crowd, limit=3 * options.timeout)
    record.facts = {**said, "asked": [int(first), int(time.time()) + 1]}
    record.timings["facts"] = round(vm.seconds - began, 1)
    record.findings += checks.judge(
        record.facts,
        stage.cluster,
        stage.node,
        wire=net,
        baked_machine_id=baked_machine_id,
        asked=asked,
    )


def ask_radio(stage: Stage, way: Access, vm: Vm, record: Rehearsal, *, patience: float) -> None:
    """What became of the node's Wi-Fi, where a radio is rehearsed; else nothing. Raises `RehearsalError`."""
    wifi = stage.cluster.wifi
    if stage.radio is None or wifi is None:
        return
    found = radio.ask(
        way,
        vm,
        stage.radio.point,
        wait=radio.PATIENCE * patience,
        reach=REACH * stage.options.crowd,
    )
    record.facts = {**(record.facts or {}), "radio": found}
    gateway = stage.cluster.gateway
    record.findings += radio.judge(
        found, stage.radio, wifi, gateway=str(gateway) if gateway else None
    )


def patience(accel: Accel) -> float:
    """How much longer than a board a node may take: an emulated one three times."""
    return _EMULATED if accel.emulated else 1


def power_limit(accel: Accel) -> float:
    """Seconds that a node may take to switch off."""
    return _POWER_OFF * patience(accel)


def switched_off(record: Rehearsal, limit: float, took: float | str) -> None:
    """The power button's verdict: seconds, or in words why the node is still on; both are findings."""
    expected = f"off within {limit:.0f} s of the power button"
    if isinstance(took, str):
        record.findings.append(Finding("power off", False, expected, took))
        return
    record.timings["power_off"] = round(took, 1)
    record.findings.append(Finding("power off", True, expected, f"off after {took:.0f} s"))
