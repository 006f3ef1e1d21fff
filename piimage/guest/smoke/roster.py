"""The cluster as /etc/piimage/cluster.json has it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = "/etc/piimage/cluster.json"


@dataclass(frozen=True)
class Node:
    """A node; `slots` is how many MPI ranks it runs, 0 in a cluster without MPI."""

    name: str
    address: str
    number: int
    role: str
    slots: int


@dataclass(frozen=True)
class Share:
    """A folder that the node `server` exports from `address`, at the same path everywhere."""

    path: str
    server: str
    address: str


@dataclass(frozen=True)
class Roster:
    """All of it. `subnet` is CIDR, `gateway` an address on the wire or None, `flavour` None without MPI."""

    cluster: str
    nodes: tuple[Node, ...]
    head: str
    user: str
    uid: int
    gid: int
    subnet: str
    gateway: str | None
    shares: tuple[Share, ...]
    flavour: str | None

    def node(self, name: str) -> Node:
        """The node of that name; raises `KeyError`."""
        return {node.name: node for node in self.nodes}[name]


def load(path: str = PATH) -> Roster:
    """The roster in the file; raises `ValueError` saying what is wrong with it."""
    try:
        data: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        mpi = data["mpi"]
        return Roster(
            cluster=data["cluster"],
            nodes=tuple(Node(**node) for node in data["nodes"]),
            head=data["head"],
            user=data["user"],
            uid=data["uid"],
            gid=data["gid"],
            subnet=data["subnet"],
            gateway=data.get("gateway"),
            shares=tuple(Share(**share) for share in data["shares"]),
            flavour=mpi["flavour"] if mpi else None,
        )
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the roster of a cluster: {error}") from error
