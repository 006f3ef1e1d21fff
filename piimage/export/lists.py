"""Lists of nodes for the tools that talk to many at once: parallel-ssh and ClusterShell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from piimage.cluster import Cluster


def pssh(cluster: Cluster) -> str:
    """The hosts file of parallel-ssh (pssh(1)): one a line. User and way are in the ssh_config."""
    lines = [f"# Cluster {cluster.name}, by `piimage export pssh`.", *cluster.addresses]
    return "".join(f"{line}\n" for line in lines)


def clush(cluster: Cluster) -> str:
    """A groups file of ClusterShell (clush.conf(5), groups.conf(5)): source is the cluster, groups are roles."""
    groups = {name: ",".join(nodes) for name, nodes in by_role(cluster).items()}
    text = yaml.safe_dump(
        {cluster.name: {**groups, "all": ",".join(cluster.addresses)}},
        sort_keys=False,
        width=1000000,
    )
    return f"# Cluster {cluster.name}, by `piimage export clush`.\n{text}"


def by_role(cluster: Cluster) -> dict[str, list[str]]:
    """Role -> names of its nodes, both in node order."""
    found: dict[str, list[str]] = {}
    for node in cluster.nodes:
        found.setdefault(node.role.name, []).append(node.name)
    return found
