"""The roster: what programs on a node may know of the cluster, as JSON. It changes when a node is added."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from piimage.components import slots
from piimage.components.contribution import Contribution, Stamp
from piimage.delta import Delta

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.facts import Facts


def image(cluster: Cluster, _role: Role, _facts: Facts) -> Contribution:
    """Room for the roster."""
    return Contribution(delta=Delta.of("roster", {slots.CLUSTER: slots.cluster(cluster)}))


def stamp(cluster: Cluster, _node: Node, _facts: Facts, _secrets: Secrets) -> Stamp:
    """The same on every node."""
    text = json.dumps(roster(cluster), indent=1) + "\n"
    return Stamp(slots={slots.CLUSTER: text.encode()})


def roster(cluster: Cluster) -> dict[str, Any]:
    """/etc/piimage/cluster.json, as docs/reference/files.md describes it; nothing secret."""
    user = cluster.users[0]
    return {
        "cluster": cluster.name,
        "nodes": [
            {
                "name": node.name,
                "address": str(node.address.ip),
                "number": node.number,
                "role": node.role.name,
                "slots": cluster.mpi.slots if cluster.mpi else 0,
            }
            for node in cluster.nodes
        ],
        "head": cluster.head.name,
        "user": user.name,
        "uid": user.uid,
        "gid": user.gid,
        "subnet": str(cluster.subnet),
        "gateway": str(cluster.gateway) if cluster.gateway else None,
        "shares": [
            {
                "path": share.path,
                "server": share.server,
                "address": str(cluster.addresses[share.server]),
            }
            for share in cluster.shares
        ],
        "mpi": (
            {"flavour": cluster.mpi.flavour, "slots": cluster.mpi.slots} if cluster.mpi else None
        ),
    }
