"""The private Ethernet's arguments: whole commands as goldens, addresses that are nobody's."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import phony_facts
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.boot import switch
from piimage.boot.wiring import gateway_argv, nics, reach, switch_argv, wire, wires
from piimage.errors import PiimageError

SOCKETS = Path("/tmp/a,b")


def company(cluster=None):
    cluster = cluster or phony_facts.cluster()
    ports = range(2200, 2200 + len(cluster.nodes))
    return cluster, wires(cluster, cluster.nodes, ports, SOCKETS)


def crowd(prefix, count):
    """A cluster of `count` nodes in a subnet of that size."""
    net = IPv4Network((0x0A000000, prefix))
    cluster = phony_facts.cluster()
    nodes = [
        replace(
            cluster.nodes[0],
            name=f"n{n}",
            number=n,
            address=IPv4Interface((int(net.network_address) + 1 + n, prefix)),
        )
        for n in range(count)
    ]
    return replace(cluster, subnet=net, nodes=tuple(nodes))


def test_a_node_in_company_is_plugged_into_the_switch():
    _, found = company()
    node0 = found["node0"]

    assert shlex.join(nics(node0)) == (
        "-netdev dgram,id=wire,local.type=unix,local.path=/tmp/a,,b/0,"
        "remote.type=unix,remote.path=/tmp/a,,b/switch "
        f"-device virtio-net-pci,netdev=wire,mac={node0.mac},romfile= "
        f"-netdev user,id=other,restrict=on -device virtio-net-pci,netdev=other,mac={node0.other_mac},romfile="
    )


def test_the_gateway_forwards_to_all_nodes_and_is_none():
    cluster, found = company()
    host = found["node0"]
    forwards = "".join(
        f",hostfwd=tcp:127.0.0.1:{2200 + n}-{node.address.ip}:22"
        for n, node in enumerate(cluster.nodes)
    )

    assert shlex.join(gateway_argv(found, SOCKETS)) == (
        "qemu-system-aarch64 -M none -nodefaults -no-user-config -display none -qmp stdio "
        "-netdev dgram,id=switch,local.type=unix,local.path=/tmp/a,,b/gateway,"
        "remote.type=unix,remote.path=/tmp/a,,b/switch "
        f"-netdev user,id=host,net={cluster.subnet},host={host.host},dns={host.resolver},"
        f"dhcpstart={host.lease},restrict=on{forwards} "
        "-netdev hubport,id=a,hubid=0,netdev=switch -netdev hubport,id=b,hubid=0,netdev=host"
    )


def test_the_switch_has_a_port_for_each_node_and_the_gateway():
    cluster, found = company()

    assert switch_argv(found, SOCKETS) == [
        sys.executable, "-I", switch.__file__, "/tmp/a,b", "gateway",
        *(str(node.number) for node in cluster.nodes),
    ]  # fmt: skip


@given(st.integers(min_value=8, max_value=28), st.integers(min_value=1, max_value=12))
def test_the_gateways_addresses_are_no_nodes(prefix, count):
    cluster, found = company(crowd(prefix, count))
    taken = set(cluster.addresses.values())

    for name, its in found.items():
        assert len({its.host, its.resolver, its.lease} - taken) == 3
        assert its.host in cluster.subnet
        assert its.resolver in its.net
        assert its.lease in its.net
        assert its.node == cluster.addresses[name]
    assert len({(its.host, its.resolver, its.lease, its.net) for its in found.values()}) == 1
    assert len({its.mac for its in found.values()}) == count


def test_the_emulated_network_is_the_wires_gateway():
    cluster, _ = company()
    cluster = replace(cluster, gateway=IPv4Address("10.0.0.200"))

    together = wires(cluster, cluster.nodes, range(len(cluster.nodes)), SOCKETS)
    alone = wire(cluster, cluster.nodes[0], 1)

    assert {str(w.host) for w in (alone, *together.values())} == {"10.0.0.200"}
    assert all(cluster.gateway not in (w.resolver, w.lease) for w in (alone, *together.values()))


def test_a_small_subnet_has_room_outside_for_what_needs_not_be_inside():
    _, found = company(crowd(29, 5))

    assert str(found["n0"].net) == "10.0.0.0/28"
    assert str(found["n0"].host) == "10.0.0.6"


def test_a_full_subnet_cannot_be_reached():
    with pytest.raises(PiimageError, match=r"10\.0\.0\.0/29 has no address beside the nodes"):
        company(crowd(29, 6))


def test_a_neighbour_is_reached_by_its_wired_address():
    _, found = company()
    argv = reach(found["node0"])

    assert argv[:2] == ("python3", "-c")
    compile(argv[2], "reach", "exec")
    assert f"('{found['node0'].node}', 22)" in argv[2]
