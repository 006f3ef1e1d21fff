"""The way from a laptop to the nodes: which of them it can reach itself, and under which name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.cluster import Cluster, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`door` is what a laptop calls the head; with `jump` the other nodes are reached through the head.

    `state` is the state directory, `known_hosts` the file that knows all nodes; both are absolute.
    """

    door: str
    jump: bool
    state: Path
    known_hosts: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """Public halves as one line each: of the host CA, and of the nodes whose keys have been made."""

    ca: str
    hosts: Mapping[str, str]


def local_name(node: Node) -> str:
    """The node's name in multicast DNS (RFC 6762)."""
    return f"{node.name}.local"


def way(cluster: Cluster, *, state: Path, known_hosts: Path, door: str | None = None) -> Way:
    """How a laptop reaches the cluster.

    `door` is a name or address of the head that the user knows better. Without it: where the head has Wi-Fi, by
    multicast DNS, and the others through it; else everything on the wire.
    """
    head = cluster.head
    if door is None and not head.role.wifi:
        return Way(door=str(head.address.ip), jump=False, state=state, known_hosts=known_hosts)
    name = door or local_name(head)
    jump = name != str(head.address.ip)
    return Way(door=name, jump=jump, state=state, known_hosts=known_hosts)
