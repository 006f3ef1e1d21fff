"""The head's name in multicast DNS; what asks for it is run against a responder of the test."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import yaml
from phony_facts import debian, service

from piimage.components import mdns
from piimage.components.contribution import Contribution
from piimage.resolve import load

TEXT = """\
version: 1
name: lab
users: [{name: ada, uid: 1000}]
network:
  wired: {subnet: 10.0.4.0/24}
  wifi: {ssid: lab, country: IT, psk: env:PSK}
nodes: {count: 2, name: "pi-{n}"}
"""


@pytest.fixture
def cluster(tmp_path):
    """The cluster with these changes to the text."""

    def make(**changes):
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(TEXT), **changes}))
        return load(path, env={"PSK": "x" * 8}).cluster

    return make


def with_units(*names, stack="netplan-networkd"):
    units = {name: service(name, enabled=True) for name in names}
    return replace(debian(), units=units, network_stack=stack)


RESOLVED = with_units(mdns.RESOLVED)
ANSWERS = b"[Network]\nMulticastDNS=yes\n"


def paths(part):
    return {path: entry.content for path, entry in part.delta.entries.items()}


def test_avahi_goes_first_and_needs_no_settings(cluster):
    found = cluster()
    part = mdns.image(found, found.head.role, with_units(mdns.RESOLVED, mdns.AVAHI))

    assert part.enable == (mdns.AVAHI,)
    assert paths(part) == {}


def test_resolved_under_networkd_is_told_for_each_link(cluster):
    found = cluster()
    part = mdns.image(found, found.head.role, RESOLVED)

    assert paths(part) == {
        "/etc/systemd/resolved.conf.d/10-piimage.conf": b"[Resolve]\nMulticastDNS=yes\n",
        **{
            f"/etc/systemd/network/10-netplan-{name}.network.d/10-piimage.conf": ANSWERS
            for name in ("wlan0", "eth0", "end0", "wired")
        },
    }
    (check,) = part.checks
    assert re.search(check.expect, "Global: yes\nLink 2 (eth0): yes\nLink 3 (wlan0): no\n")
    assert not re.search(check.expect, "Global: yes\nLink 2 (eth0): no\n")


@pytest.mark.parametrize("stack", ["networkmanager", "netplan-networkmanager"])
def test_resolved_under_networkmanager(cluster, stack):
    found = cluster()
    part = mdns.image(found, found.head.role, with_units(mdns.RESOLVED, stack=stack))

    assert paths(part)["/etc/NetworkManager/conf.d/91-piimage-mdns.conf"] == (
        b"[connection]\nconnection.mdns=2\n"
    )
    assert len(paths(part)) == 2


@pytest.mark.parametrize("facts", [with_units(), replace(RESOLVED, units={
    mdns.RESOLVED: service(mdns.RESOLVED)})])  # fmt: skip
def test_a_base_that_cannot_answer_is_left_alone(cluster, facts):
    found = cluster()
    assert mdns.image(found, found.head.role, facts) == Contribution()
    assert mdns.stamp(found, found.nodes[1], facts, None).checks == ()


def test_only_the_head_speaks_and_only_others_ask(cluster):
    found = cluster()
    assert mdns.image(found, found.nodes[1].role, RESOLVED) == Contribution()
    assert mdns.stamp(found, found.head, RESOLVED, None).checks == ()
    (check,) = mdns.stamp(found, found.nodes[1], RESOLVED, None).checks
    assert check.argv[-2:] == ("pi-0", "10.0.4.2")
    assert check.needs_cluster


@pytest.mark.parametrize(
    "changes",
    [{"network": {"wired": {"subnet": "10.0.4.0/24"}}}, {"roles": {"head": {"wifi": False}}}],
)
def test_a_head_on_the_wire_alone_is_found_by_its_address(cluster, changes):
    found = cluster(**changes)
    assert mdns.image(found, found.head.role, RESOLVED) == Contribution()
    assert mdns.stamp(found, found.nodes[1], RESOLVED, None).checks == ()


@pytest.fixture
def responder():
    """Answers one query on loopback, in the way of RFC 6762 6.7."""
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end.bind(("", 5353))
    group = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
    end.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    end.settimeout(20)
    asked = []

    def serve(records):
        query, sender = end.recvfrom(9000)
        asked.append(query)
        answers = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 10, len(data)) + data
            for kind, data in records
        )
        head = query[:2] + struct.pack(">5H", 0x8400, 1, len(records), 0, 0)
        end.sendto(head + query[12:] + answers, sender)

    with end:
        yield lambda records: threading.Thread(target=serve, args=[records]), asked


def test_the_question_and_the_reading_of_the_answer(cluster, responder):
    """A name of four letters and an address with 0.4 in it look like the length of an address."""
    found = cluster()
    (check,) = mdns.stamp(found, found.nodes[1], RESOLVED, None).checks
    begin, asked = responder
    thread = begin([(28, bytes(16)), (1, socket.inet_aton("10.0.4.1"))])
    thread.start()
    argv = [sys.executable, *check.argv[1:-1], "127.0.0.1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    thread.join()

    assert asked[0][12:] == b"\4pi-0\5local\0\0\1\0\1"
    assert done.stdout == "10.0.4.1\n"
    assert re.search(check.expect, done.stdout)
    assert not re.search(check.expect, "10.0.4.11\n")
