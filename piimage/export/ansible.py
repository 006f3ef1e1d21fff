"""An inventory for Ansible: nodes, and a group for each role."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import yaml

from piimage.export.lists import by_role

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.cluster import Cluster, Node

#: Groups that Ansible has by itself.
_RESERVED = frozenset({"all", "ungrouped"})


def inventory(cluster: Cluster, ssh_config: Path) -> str:
    """YAML inventory. ssh does the rest by the absolute `ssh_config`, so hosts have no address to reach them by."""
    found: dict[str, Any] = {
        "all": {
            "vars": {
                "ansible_user": cluster.users[0].name,
                "ansible_ssh_common_args": f"-F {shlex.quote(str(ssh_config))}",
                "ansible_python_interpreter": "/usr/bin/python3",
                "cluster_name": cluster.name,
                "cluster_head": cluster.head.name,
            },
            "hosts": {node.name: _variables(node) for node in cluster.nodes},
            "children": {
                _group(role, cluster): {"hosts": {name: {} for name in names}}
                for role, names in by_role(cluster).items()
            },
        }
    }
    text = yaml.safe_dump(found, sort_keys=False, default_flow_style=False)
    return f"# Cluster {cluster.name}, by `piimage export ansible`.\n{text}"


def _variables(node: Node) -> dict[str, Any]:
    board = {"cluster_board": node.board} if node.board else {}
    return {
        "cluster_number": node.number,
        "cluster_address": str(node.address.ip),
        "cluster_role": node.role.name,
        **board,
    }


def _group(role: str, cluster: Cluster) -> str:
    """A name that is valid for a variable, as Ansible wants it, and no host's."""
    name = re.sub(r"\W", "_", role)
    taken = name in _RESERVED or name in cluster.addresses or name[0].isdigit()
    return f"role_{name}" if taken else name
