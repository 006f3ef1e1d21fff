"""The real switch and the real gateway; two sockets play nodes, frame by frame."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from piimage.boot import place
from piimage.boot.fabric import fabric, sockets
from piimage.boot.wiring import wires
from piimage.resolve import load

CLUSTER = load(Path(__file__).parents[2] / "cluster.yaml", env={}).cluster
ARP, IPV4 = b"\x08\x06", b"\x08\x00"
BROADCAST = b"\xff" * 6
SYN, RST = 2, 4


class Port:
    """A node's NIC as a socket."""

    def __init__(self, wire):
        self.wire = wire
        self.mac = bytes.fromhex(wire.mac.replace(":", ""))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(wire.socket))

    def send(self, frame):
        self.socket.sendto(frame, str(self.wire.socket.with_name("switch")))

    def announce(self):
        """Be known to the switch."""
        self.ask(self.wire.node)

    def ask(self, address):
        sought = bytes(6) + address.packed
        self.send(self.arp(1, BROADCAST, sought))

    def answer(self, question):
        """Say who has our address."""
        self.send(self.arp(2, question[22:28], question[22:32]))

    def arp(self, kind, to, about):
        head = to + self.mac + ARP + struct.pack("!HHBBH", 1, 0x800, 6, 4, kind)
        return head + self.mac + self.wire.node.packed + about

    def frames(self, seconds):
        """What comes, until nothing came for so long; questions for our address are answered."""
        self.socket.settimeout(seconds)
        while True:
            try:
                frame = self.socket.recv(65536)
            except TimeoutError:
                return
            if frame[12:14] == ARP and frame[38:42] == self.wire.node.packed:
                self.answer(frame)
            yield frame


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def syn(sender, to, port):
    """The first segment of a connection, addressed as a node addresses another."""
    ends = sender.wire.node.packed + to.wire.node.packed
    tcp = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, SYN, 65535, 0, 0)
    tcp = tcp[:16] + checksum(ends + struct.pack("!BBH", 0, 6, len(tcp)) + tcp) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + ends
    ip = ip[:10] + checksum(ip) + ip[12:]
    return to.mac + sender.mac + IPV4 + ip + tcp


def segments(port, seconds=2):
    """`(from, to, port, flags)` of the TCP segments that come."""
    for frame in port.frames(seconds):
        if frame[12:14] == IPV4 and frame[23] == 6:
            yield (
                IPv4Address(frame[26:30]),
                IPv4Address(frame[30:34]),
                int.from_bytes(frame[36:38], "big"),
                frame[47],
            )


@pytest.fixture
def wired(tmp_path):
    nodes = CLUSTER.nodes
    with sockets() as directory:
        found = wires(CLUSTER, nodes, place.free_ports(len(nodes)), directory)
        with fabric(found, directory, tmp_path):
            ports = {name: Port(wire) for name, wire in found.items()}
            yield ports
            for port in ports.values():
                port.socket.close()


def test_the_hosts_connection_arrives_at_the_nodes_sshd(wired):
    one, other = wired["node0"], wired["node3"]

    with socket.create_connection(("127.0.0.1", other.wire.port), 5):
        found = next(segments(other))

    assert found == (other.wire.host, other.wire.node, 22, SYN)
    assert list(segments(one, 0.5)) == []


def test_nodes_see_each_other(wired):
    one, other = wired["node0"], wired["node3"]
    one.announce()
    other.announce()

    one.send(syn(one, other, 2049))

    assert next(segments(other))[2:] == (2049, SYN)


def test_nobody_answers_for_a_dead_node(wired):
    one, other = wired["node0"], wired["node3"]
    other.announce()
    other.socket.close()
    other.wire.socket.unlink()

    one.send(syn(one, other, 2049))

    assert list(segments(one)) == [], "a refusal is not what a power cut looks like"
    one.ask(one.wire.host)
    assert any(frame[12:14] == ARP for frame in one.frames(2)), "the gateway is there"


def test_a_frame_that_the_gateway_should_not_see_would_be_refused(wired):
    """Why the switch does not flood: QEMU's user network looks at no MAC address."""
    one, other = wired["node0"], wired["node3"]
    gateway = str(one.wire.socket.with_name("gateway"))
    one.ask(one.wire.host)
    list(one.frames(0.5))

    one.socket.sendto(syn(one, other, 2049), gateway)

    (refusal,) = segments(one)
    assert refusal[0] == other.wire.node
    assert refusal[3] & RST
