"""The nodes of a spec one by one, in whichever form they are written, with names and addresses."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from piimage.spec import model
from piimage.spec.types import number_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.spec.place import FieldPath

HEAD, WORKER = "head", "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A node's place in the cluster. `path` is where it is written; `entry` is None in count form.

    `address` is None when the subnet is too small to give one.
    """

    number: int
    path: FieldPath
    name: str
    role: str
    address: IPv4Address | None
    board: str | None
    entry: model.NodeEntry | None = None

    def where(self, field: str) -> FieldPath:
        """The field's path if it is written for this node, else the node's own."""
        if self.entry is not None and field in self.entry.model_fields_set:
            return (*self.path, field)
        return self.path


def seats(spec: model.Spec) -> tuple[Seat, ...]:
    """All nodes in order."""
    wired = spec.network.wired
    if isinstance(spec.nodes, model.NodeCount):
        form = spec.nodes
        return tuple(
            Seat(
                number=number,
                path=("nodes",),
                name=number_name(form.name, number),
                role=HEAD if number == form.head else WORKER,
                address=_address(wired, number),
                board=form.board,
            )
            for number in range(form.count)
        )
    no_roles = all(entry.role is None for entry in spec.nodes)
    return tuple(
        Seat(
            number=number,
            path=("nodes", number),
            name=entry.name or f"node{number}",
            role=entry.role or (HEAD if no_roles and number == 0 else WORKER),
            address=entry.address or _address(wired, number),
            board=entry.board,
            entry=entry,
        )
        for number, entry in enumerate(spec.nodes)
    )


def first_address(wired: model.Wired) -> IPv4Address:
    """Node 0's; a router mostly has the lowest of its subnet, and then the next one is."""
    lowest = wired.subnet.network_address + 1
    return wired.first or (lowest + 1 if lowest == wired.gateway else lowest)


def _address(wired: model.Wired, number: int) -> IPv4Address | None:
    first = first_address(wired)
    value = int(first) + number
    if value >= int(wired.subnet.broadcast_address) or first not in wired.subnet:
        return None
    return IPv4Address(value)


def traits_of(spec: model.Spec) -> Iterator[tuple[FieldPath, model.Spec | model.Traits]]:
    """Whatever has traits, with its path: the cluster, its roles, its nodes."""
    yield (), spec
    for name, role in spec.roles.items():
        yield ("roles", name), role
    if isinstance(spec.nodes, list):
        for number, entry in enumerate(spec.nodes):
            yield ("nodes", number), entry
