"""The switch as a process: who gets a frame, what it forgets (nothing), when it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from piimage.boot import switch

BROADCAST = b"\xff" * 6
MACS = {name: b"\x02" + name.encode() * 5 for name in "abc"}


class Wire:
    """A running switch and the sockets of its machines."""

    def __init__(self, place):
        self.place = place
        argv = [sys.executable, "-I", switch.__file__, str(place), *MACS]
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while not (place / switch.NAME).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.ends = {}
        for name in MACS:
            self.plug(name)

    def plug(self, name):
        (self.place / name).unlink(missing_ok=True)
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        end.bind(str(self.place / name))
        end.settimeout(5)
        self.ends[name] = end

    def send(self, sender, to, text=b"hello"):
        self.ends[sender].sendto(to + MACS[sender] + text, str(self.place / switch.NAME))

    def got(self, name):
        return self.ends[name].recv(65536)[12:]

    def nothing(self, name):
        """After a frame that surely comes, nothing else has come."""
        self.send("a" if name != "a" else "b", BROADCAST, b"mark")
        return self.got(name) == b"mark"

    def close(self):
        for end in self.ends.values():
            end.close()
        self.child.stdin.close()
        self.child.stderr.close()
        assert self.child.wait(10) == 0


@pytest.fixture
def wire(tmp_path):
    made = Wire(tmp_path)
    yield made
    made.close()


def test_a_broadcast_reaches_all_others_and_not_its_sender(wire):
    wire.send("a", BROADCAST)

    assert (wire.got("b"), wire.got("c")) == (b"hello", b"hello")
    assert wire.nothing("a")


def test_a_multicast_is_a_broadcast(wire):
    wire.send("a", b"\x33\x33\0\0\0\1")

    assert wire.got("c") == b"hello"


def test_a_frame_for_one_reaches_that_one(wire):
    wire.send("b", BROADCAST, b"here I am")
    assert wire.got("a") == wire.got("c") == b"here I am"

    wire.send("a", MACS["b"])

    assert wire.got("b") == b"hello"
    assert wire.nothing("c")


def test_a_frame_for_nobody_known_is_flooded_to_nobody(wire):
    wire.send("a", MACS["b"])

    assert wire.nothing("b")
    assert wire.nothing("c")


def test_a_frame_for_a_dead_machine_goes_nowhere_and_it_may_come_back(wire):
    wire.send("b", BROADCAST, b"here I am")
    assert wire.got("a") == wire.got("c") == b"here I am"
    wire.ends["b"].close()

    wire.send("a", MACS["b"])
    assert wire.nothing("c"), "else QEMU's user network would answer in its name"

    wire.plug("b")
    wire.send("a", MACS["b"], b"again")
    assert wire.got("b") == b"again"


def test_who_takes_nothing_does_not_hold_up_the_others(wire):
    for _ in range(2000):
        wire.send("a", BROADCAST)
        wire.got("b")

    assert wire.got("c") == b"hello"


def test_it_ends_with_its_standard_input(tmp_path):
    Wire(tmp_path).close()
