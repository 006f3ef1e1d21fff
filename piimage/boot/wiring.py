"""The private Ethernet as QEMU arguments: addresses, NICs, the switch, the host's way in. Pure.

NIC 1 is the wire. Alone, a node meets nothing there but a forward from the host; in company it is plugged into a
switch (`switch.py` on unix sockets: no root, no address of the host's), and the forwards live in a gateway
that is no node, so that they outlive each of them. NIC 2 is QEMU's user network, which offers every node the
same address by DHCP and leads nowhere.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from piimage.boot import switch
from piimage.emulator import escaped
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network
    from pathlib import Path

    from piimage.cluster import Cluster, Node

#: Slirp needs a net with addresses for itself, its name server and its leases.
_SMALLEST = 28
#: What QEMU's user network (slirp) gives to whoever asks there by DHCP, and its own address.
OTHER_ADDRESS, OTHER_GATEWAY = "10.0.2.15/24", "10.0.2.2"
#: QEMU's name of NIC 1.
WIRE = "wire"
#: The gateway's socket; nodes have their numbers, since the address of a unix socket is short (unix(7)).
_GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """NIC 1's surroundings: a forward from `port` of the host's loopback to the node's sshd, and the switch.

    `host`, `resolver` and `lease` are the emulated network's own addresses; `host` lies in the cluster's
    subnet, so that the node answers it without a route, and is the gateway's where cluster.yaml has one.
    `socket` is the node's own, beside the switch's, or None where the node is alone.
    """

    net: IPv4Network
    node: IPv4Address
    host: IPv4Address
    resolver: IPv4Address
    lease: IPv4Address
    mac: str
    other_mac: str
    port: int
    socket: Path | None = None


def wire(cluster: Cluster, node: Node, port: int) -> Wire:
    """A node alone: none of the emulated network's addresses is a node's where the subnet is large enough."""
    taken = set(cluster.addresses.values())
    net = _wide(cluster.subnet, 4)
    enough = len(taken) + 3
    others = (a for a in cluster.subnet.hosts() if a != node.address.ip)
    near = sorted(islice(others, enough), key=lambda address: address in taken)
    if not near:
        raise PiimageError(
            f"subnet {cluster.subnet} has no address beside the node's own to reach it from",
            hint="use a larger subnet",
        )
    host = cluster.gateway or near[0]
    others = (a for a in net.hosts() if a not in (host, node.address.ip))
    wide = sorted(islice(others, enough), key=lambda address: address in taken)
    return Wire(
        net=net,
        node=node.address.ip,
        host=host,
        resolver=wide[0],
        lease=wide[1],
        mac=node.mac or local_mac(cluster.name, node.name, "eth0"),
        other_mac=local_mac(cluster.name, node.name, "eth1"),
        port=port,
    )


def wires(
    cluster: Cluster, nodes: Sequence[Node], ports: Sequence[int], sockets: Path
) -> dict[str, Wire]:
    """Nodes in company, by name, with their sockets in a directory; the gateway's addresses are no node's.

    Raises `PiimageError` when the subnet has no address left for it.
    """
    taken = set(cluster.addresses.values())
    host = cluster.gateway or next((a for a in cluster.subnet.hosts() if a not in taken), None)
    net = _wide(cluster.subnet, len(taken) + 3)
    free = (a for a in net.hosts() if a not in taken and a != host)
    if host is None:
        raise PiimageError(
            f"subnet {cluster.subnet} has no address beside the nodes' own to reach them from",
            hint="use a larger subnet, or rehearse the nodes one at a time",
        )
    resolver, lease = islice(free, 2)
    return {
        node.name: replace(
            wire(cluster, node, port),
            net=net,
            host=host,
            resolver=resolver,
            lease=lease,
            socket=sockets / str(node.number),
        )
        for node, port in zip(nodes, ports, strict=True)
    }


def _wide(net: IPv4Network, needed: int) -> IPv4Network:
    """The net, or the smallest around it with `needed` addresses."""
    prefix = min(net.prefixlen, _SMALLEST)
    while (1 << (32 - prefix)) - 2 < needed:
        prefix -= 1
    return net if prefix == net.prefixlen else net.supernet(new_prefix=prefix)


def local_mac(*identity: str) -> str:
    """A locally administered unicast address, always the same for the same words."""
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()
    return ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])


def nics(net: Wire) -> list[str]:
    """Both NICs of a node as arguments; `restrict` keeps a node from reaching anything outside."""
    wired = _user(WIRE, [net]) if net.socket is None else _plug(WIRE, net.socket)
    return [
        *("-netdev", wired),
        *("-device", f"virtio-net-pci,netdev={WIRE},mac={net.mac},romfile="),
        *("-netdev", "user,id=other,restrict=on"),
        *("-device", f"virtio-net-pci,netdev=other,mac={net.other_mac},romfile="),
    ]


def _user(ident: str, forwards: Sequence[Wire]) -> str:
    """QEMU's user network with the host's ways in; a forward works in spite of `restrict`."""
    net = forwards[0]
    words = (
        f"user,id={ident},net={net.net},host={net.host},dns={net.resolver},dhcpstart={net.lease}"
    )
    return f"{words},restrict=on" + "".join(
        f",hostfwd=tcp:127.0.0.1:{w.port}-{w.node}:22" for w in forwards
    )


def _plug(ident: str, socket: Path) -> str:
    """A netdev that sends each frame to the switch beside `socket`, and takes what comes to `socket`."""
    ours, theirs = escaped(socket), escaped(socket.with_name(switch.NAME))
    local, remote = f"local.type=unix,local.path={ours}", f"remote.type=unix,remote.path={theirs}"
    return f"dgram,id={ident},{local},{remote}"


def switch_argv(nodes: Mapping[str, Wire], sockets: Path) -> list[str]:
    """The switch, with a port for each node and one for the gateway."""
    names = [wire.socket.name for wire in nodes.values() if wire.socket is not None]
    return [sys.executable, "-I", switch.__file__, str(sockets), _GATEWAY, *names]


def gateway_argv(nodes: Mapping[str, Wire], sockets: Path) -> list[str]:
    """A QEMU without a machine: a hub between the switch and a user network with the forwards of all nodes."""
    return [
        "qemu-system-aarch64",
        *("-M", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"),
        *("-netdev", _plug("switch", sockets / _GATEWAY)),
        *("-netdev", _user("host", list(nodes.values()))),
        *("-netdev", "hubport,id=a,hubid=0,netdev=switch"),
        *("-netdev", "hubport,id=b,hubid=0,netdev=host"),
    ]


def reach(other: Wire) -> tuple[str, ...]:
    """What a node runs to see whether another's sshd answers at its wired address: it prints how that begins."""
    text = (
        f"import socket; print(socket.create_connection(('{other.node}', 22), 60).recv(4).decode())"
    )
    return ("python3", "-c", text)
