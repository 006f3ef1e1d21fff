"""What ssh on a laptop reads: how to reach every node without a question, and how to know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.ssh import host_names, known_hosts_lines
from piimage.export.way import local_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.cluster import Cluster, Node
    from piimage.export.way import PublicKeys, Way

#: ssh_config(5): keys that are named replace those that ssh takes by itself, so these are named too.
_OWN_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


def ssh_config(cluster: Cluster, way: Way) -> str:
    """What makes `ssh NODE` work (ssh_config(5)): as the first user, with the cluster's key or one's own."""
    head = cluster.head
    head_line = f"# Cluster {cluster.name}, by `piimage export ssh-config`.\n"
    use = "# ssh -F THIS NODE; or put `Include` and this file's path at the top of ~/.ssh/config.\n"
    parts = [head_line + use]
    for node in cluster.nodes:
        own = node is head
        lines = [
            f"HostName {way.door if own else node.address.ip}",
            f"HostKeyAlias {node.name}",
            *([f"ProxyJump {head.name}"] if way.jump and not own else []),
        ]
        parts.append(_block(_names(cluster, node, wire=not own), lines))
    everyone = [name for node in cluster.nodes for name in _names(cluster, node, wire=True)]
    parts.append(_block(everyone, _common(cluster, way)))
    return "\n".join(parts)


def _names(cluster: Cluster, node: Node, *, wire: bool) -> list[str]:
    """All that the user may say for a node; NODE.CLUSTER for who has several clusters.

    Without `wire` its address there is left out: who says that for the head means no other way.
    """
    *names, address = host_names(cluster, node)
    local = [local_name(node)] if node is cluster.head else []
    more = [f"{node.name}.{cluster.name}", *local, *([address] if wire else [])]
    return list(dict.fromkeys([*names, *more]))


def _common(cluster: Cluster, way: Way) -> list[str]:
    """For every node. A host that the file of known ones does not have is refused rather than asked about."""
    keys = [_quoted(way.state / "id"), *_private_keys(cluster)]
    return [
        f"User {cluster.users[0].name}",
        f"UserKnownHostsFile {_quoted(way.known_hosts)}",
        "GlobalKnownHostsFile /dev/null",
        "StrictHostKeyChecking yes",
        *(f"IdentityFile {key}" for key in keys),
        "IdentitiesOnly yes",
    ]


def _private_keys(cluster: Cluster) -> Iterator[str]:
    """The private halves of the key files of cluster.yaml, else those that ssh takes by itself."""
    named = [
        key.value.removesuffix(".pub")
        for user in cluster.users
        for key in user.ssh_keys
        if key.kind == "file" and key.value.endswith(".pub")
    ]
    yield from dict.fromkeys(map(_quoted, named)) if named else _OWN_KEYS


def _block(names: list[str], lines: list[str]) -> str:
    return f"Host {' '.join(names)}\n" + "".join(f"    {line}\n" for line in lines)


def _quoted(path: Path | str) -> str:
    """A file's name; `%` begins a token there (ssh_config(5), TOKENS)."""
    return f'"{str(path).replace("%", "%%")}"'


def known_hosts(cluster: Cluster, keys: PublicKeys) -> str:
    """sshd(8), known_hosts: the host CA for all nodes, and each key that has been made."""
    head = cluster.head
    lines = known_hosts_lines(cluster, keys.ca, keys.hosts)
    if head.name in keys.hosts:
        bare = " ".join(keys.hosts[head.name].split()[:2])
        lines.append(f"{local_name(head)} {bare}\n")  # no certificate is for that name
    return "".join(lines)


def hosts(cluster: Cluster) -> str:
    """Addresses on the wire (hosts(5)), for a machine that is on it."""
    rows = [(str(node.address.ip), host_names(cluster, node)[:-1]) for node in cluster.nodes]
    width = max(len(address) for address, _ in rows)
    lines = [f"{address:<{width}}  {' '.join(reversed(names))}\n" for address, names in rows]
    begin, end = f"# cluster {cluster.name}: begin\n", f"# cluster {cluster.name}: end\n"
    return "".join([begin, *lines, end])
