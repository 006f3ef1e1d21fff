"""A node that plays in company: what it starts from, its files, its record, its wire, the way in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.boot import card, machine, place, stage, steps, wiring
from piimage.boot.machine import Machine
from piimage.boot.testbed import Start
from piimage.components.contribution import Check

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from piimage.boot.card import Card
    from piimage.boot.guest import Access
    from piimage.boot.machine import Parts
    from piimage.boot.qemu import Vm
    from piimage.boot.report import Rehearsal
    from piimage.boot.stage import Stage
    from piimage.boot.wiring import Wire
    from piimage.emulator import Accel

#: What a node sees of a neighbour whose sshd answers at its wired address.
_BANNER = "^SSH-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One of the nodes of a joint rehearsal; `scratch` goes when the rehearsal ends."""

    stage: Stage
    card: Card
    scratch: Path
    record: Rehearsal
    wire: Wire
    way: Access

    @property
    def name(self) -> str:
        """The node's name."""
        return self.stage.node.name

    def parts(self) -> Parts:
        """What it is started from; makes the overlay."""
        return steps.parts(self.card, Machine.VIRT, self.record, self.scratch)

    def start(self, parts: Parts, accel: Accel, *, wired: bool = True) -> Start:
        """How it is started from such parts; not `wired`, it has no NIC."""
        memory, wire = self.stage.options.memory, self.wire if wired else None
        mpi = self.stage.cluster.mpi
        slots = mpi.slots if mpi else 1
        words = machine.argv(Machine.VIRT, parts, accel, memory, wire, slots=slots)
        console = self.record.console
        return Start(words, console, console.with_name(place.MESSAGES))

    def ask(self, vm: Vm, neighbours: Sequence[Actor]) -> str:
        """Its facts, judged, and whether its neighbours answer it; in words what came of it.

        What needs the other nodes is asked when all of them are there.

        Raises `RehearsalError` when it does not answer.
        """
        argvs = {actor.name: wiring.reach(actor.wire) for actor in neighbours}
        more = [Check(name=f"reaches {n}", argv=argv, expect=_BANNER) for n, argv in argvs.items()]
        steps.ask(
            self.stage,
            self.way,
            self.wire,
            vm,
            self.record,
            baked_machine_id=self.card.machine_id,
            more=tuple(more),
            alone=len(neighbours) + 1 < len(self.stage.cluster.nodes),
        )
        failed, count = len(self.record.failed), len(self.record.findings)
        return f"{failed} of {count} checks failed" if failed else f"{count} checks passed"


def company(
    stages: Sequence[Stage], accel: Accel, output: Path, sockets: Path, stack: ExitStack
) -> dict[str, Actor]:
    """All nodes by name, each alone in its place until `stack` ends.

    Raises `PiimageError` when a disk cannot be started or another rehearsal has one of the places.
    """
    nodes = [each.node for each in stages]
    wires = wiring.wires(stages[0].cluster, nodes, place.free_ports(len(nodes)), sockets)
    actors = {}
    for each in stages:
        home = place.directory(output, each.node)
        stack.enter_context(place.alone(home))
        found = card.read_card(each.disk)
        record = stage.begin(each, found, accel, home)
        wire = wires[each.node.name]
        actors[each.node.name] = Actor(
            stage=each,
            card=found,
            scratch=stack.enter_context(place.scratch(home)),
            record=record,
            wire=wire,
            way=steps.access(each, wire, record),
        )
    return actors
