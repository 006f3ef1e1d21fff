"""What a rehearsal of a node needs to know, and the record that it begins."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from piimage import emulator
from piimage.boot import access_point, machine, place
from piimage.boot.machine import Machine
from piimage.boot.memory import Share
from piimage.boot.report import Rehearsal

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.boot.access_point import Radio
    from piimage.boot.card import Card
    from piimage.boot.disk import Disk
    from piimage.cluster import Cluster, Node
    from piimage.components.contribution import Check
    from piimage.emulator import Accel
    from piimage.progress import Progress
    from piimage.state.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to rehearse: `timeout` in seconds for each long wait, `disk_size` in bytes.

    `unplugged` keeps the wire's cable out until the login prompt came.
    `crowd` is how many times longer than alone a node may take to answer, since others share the processors.
    """

    machine: Machine = Machine.VIRT
    timeout: float = 900
    disk_size: int | None = None
    memory: Share = field(default_factory=Share)
    unplugged: bool = False
    crowd: float = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Whose disk, what was promised, how to log in; `radio` is what its Wi-Fi meets, None without a radio."""

    cluster: Cluster
    node: Node
    disk: Disk
    state: State
    asked: tuple[Check, ...]
    progress: Progress
    options: Options = Options()
    radio: Radio | None = None


def accelerate(machine_: Machine, progress: Progress) -> Accel:
    """KVM where it works, else emulation, which is said once."""
    usable = machine_ is Machine.VIRT and os.access(emulator.KVM, os.R_OK | os.W_OK)
    accel = emulator.accelerator(platform.machine(), usable=usable)
    if accel.emulated:
        progress.say("QEMU emulates the processor (TCG): a boot takes minutes instead of seconds")
    return accel


def begin(stage: Stage, found: Card, accel: Accel, home: Path) -> Rehearsal:
    """The record of a rehearsal that is about to start, whose files lie in `home`."""
    machine_ = stage.options.machine
    added = machine.additions(machine_, found.cmdline, accel)
    if stage.radio is not None:
        added += (access_point.TOKEN,)
    return Rehearsal(
        cluster=stage.cluster.name,
        node=stage.node.name,
        build=stage.disk.build,
        machine=machine_.value,
        accel=accel.name,
        artifact=stage.disk.image,
        stamp=stage.disk.stamp,
        disk_size=machine.overlay_size(machine_, found.size, stage.options.disk_size),
        cmdline=" ".join([found.cmdline, *added]),
        additions=added,
        console=home / place.CONSOLE,
        access_point=stage.radio.point.value if stage.radio else None,
        unplugged=stage.options.unplugged,
    )
