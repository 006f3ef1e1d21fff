"""How a node finds out how it is: the findings behind the Blinkt's status."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from piimage.guest.blinkt import health
from piimage.guest.blinkt.health import Finding, Share, State

ROOT = Path(__file__).parents[2]
SHARE = (Share("/srv/cluster", "node0"),)
TRACKING = "0A010AF0,10.1.10.240,3,1790000000.1,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,64.0,{}\n"


@pytest.fixture
def tree(tmp_path):
    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ("NFailedUnits=0\nSystemState=running\n", State.OK, "ok"),
        ("NFailedUnits=0\nSystemState=starting\n", State.WAITING, "starting"),
        ("SystemState=degraded\nNFailedUnits=1\n", State.BAD, "1 failed unit"),
        ("NFailedUnits=2\nSystemState=starting\n", State.BAD, "2 failed units"),
        ("", State.UNKNOWN, "no answer"),
        (None, State.UNKNOWN, "no answer"),
    ],
)
def test_the_system_is_judged_by_its_failed_units(said, state, words):
    assert health.system(lambda _: said) == Finding("system", state, words)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (TRACKING.format("Normal"), State.OK),
        (TRACKING.format("Insert second"), State.OK),
        (TRACKING.format("Not synchronised"), State.WARNING),
        ("7F7F0101," + TRACKING.format("Normal").partition(",")[2], State.WAITING),
        ("506 Cannot talk to daemon\n", State.WARNING),
        (None, State.WARNING),
    ],
)
def test_the_clock_is_judged_by_what_chronyd_follows(said, state):
    assert health.clock(lambda _: said).state is state


MOUNTED = """\
23 28 0:21 / /proc rw,nosuid - proc proc rw
31 24 0:27 / /srv/cluster rw,relatime shared:9 - autofs systemd-1 rw,fd=54,pgrp=1
"""
NFS = (
    "77 31 0:61 / /srv/cluster rw,relatime shared:40 - nfs4 10.1.10.240:/srv/cluster rw,vers=4.2\n"
)


@pytest.mark.parametrize(
    ("mounts", "state"),
    [
        (MOUNTED + NFS, State.OK),
        (MOUNTED, State.WAITING),
        (NFS, State.OK),
        (MOUNTED.splitlines()[0] + "\n", State.BAD),
        (NFS.replace("/srv/cluster rw", "/srv/cluster2 rw"), State.BAD),
        ("", State.BAD),
    ],
)
def test_a_worker_has_the_share_or_waits_for_it(tree, mounts, state):
    root = tree({"proc/self/mountinfo": mounts})
    assert health.share(root, SHARE, "node1").state is state


@pytest.mark.parametrize(
    ("etab", "threads", "state"),
    [
        ("/srv/cluster\t10.1.10.0/24(rw,sync)\n", "8\n", State.OK),
        ("/srv/cluster\t10.1.10.0/24(rw,sync)\n", "0\n", State.BAD),
        ("/srv/other\t10.1.10.0/24(rw,sync)\n", "8\n", State.BAD),
        ("", "8\n", State.BAD),
    ],
)
def test_the_server_exports_the_share(tree, etab, threads, state):
    root = tree({"var/lib/nfs/etab": etab, "proc/fs/nfsd/threads": threads})
    assert health.share(root, SHARE, "node0").state is state


def test_of_several_shares_the_worst_counts(tree):
    root = tree({"proc/self/mountinfo": MOUNTED + NFS})
    shares = (*SHARE, Share("/srv/more", "node0"))
    assert health.share(root, shares, "node1") == Finding("share", State.BAD, "not mounted")
    assert health.share(root, (), "node1").state is State.UNKNOWN


def test_a_blank_in_a_path_is_read_as_one(tree):
    root = tree({"proc/self/mountinfo": NFS.replace("/srv/cluster rw", "/srv/my\\040files rw")})
    assert health.share(root, (Share("/srv/my files", "node0"),), "node1").state is State.OK


def test_the_share_itself_is_never_touched():
    """Whoever opens, lists or stats a share whose server is dead hangs; a program that we start may not either."""
    traced = (
        "import sys; from pathlib import Path\n"
        "sys.addaudithook(lambda e, a: print(e, a) if '/srv/cluster' in repr(a) else None)\n"
        "from piimage.guest.blinkt import health\n"
        "shares = (health.Share('/srv/cluster', 'node0'),)\n"
        "print(len(health.findings(Path('/'), shares, 'node1', health.answer)))\n"
        "open('/srv/cluster/x') if len(sys.argv) > 1 else None\n"
    )
    argv = [sys.executable, "-c", traced]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    quiet = subprocess.run(argv, capture_output=True, text=True, env=env, check=True)
    loud = subprocess.run([*argv, "x"], capture_output=True, text=True, env=env, check=False)

    assert quiet.stdout == "7\n"
    assert loud.stdout.startswith("7\nopen ('/srv/cluster/x'")


@pytest.mark.parametrize(
    ("degrees", "state"),
    [
        (["41000"], State.OK),
        (["41000", "70000"], State.WARNING),
        (["80000", "1000"], State.BAD),
        (["-3000"], State.OK),
        (["garbage"], State.UNKNOWN),
        ([], State.UNKNOWN),
    ],
)
def test_the_hottest_sensor_counts(tree, degrees, state):
    root = tree({f"sys/class/thermal/thermal_zone{n}/temp": t for n, t in enumerate(degrees)})
    assert health.temperature(root).state is state


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "0\n"}, State.OK),
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"}, State.BAD),
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"}, State.WARNING),
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "x\n"}, State.UNKNOWN),
        (
            {
                "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
                "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
                "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
            },
            State.BAD,
        ),
        (
            {
                "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
                "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
            },
            State.OK,
        ),
        ({}, State.UNKNOWN),
    ],
)
def test_the_supply_is_judged_by_firmware_or_driver(tree, files, state):
    assert health.power(tree(files)).state is state


def port(name, *, carrier="1", kind="1", extra="device/uevent"):
    here = f"sys/class/net/{name}"
    return {
        f"{here}/type": kind,
        f"{here}/{extra}": "",
        **({f"{here}/carrier": carrier} if carrier else {}),
    }


@pytest.mark.parametrize(
    ("ports", "finding"),
    [
        (port("eth0"), (State.OK, "eth0")),
        (port("end0", carrier="0"), (State.BAD, "no carrier")),
        (port("end0", carrier=None), (State.BAD, "no carrier")),
        ({**port("eth0", carrier="0"), **port("eth1")}, (State.OK, "eth1")),
        ({**port("wlan0"), **port("wlan0", extra="phy80211/name")}, (State.BAD, "no port")),
        (port("lo", kind="772"), (State.BAD, "no port")),
        (port("br0", extra="bridge/x"), (State.BAD, "no port")),
    ],
)  # fmt: skip
def test_the_wire_is_a_real_port_with_a_carrier(tree, ports, finding):
    found = health.wire(tree(ports))
    assert (found.state, found.words) == finding


def test_the_disk_is_judged_by_what_users_may_still_write(tmp_path, monkeypatch):
    def of(free):
        stat = os.statvfs_result((4096, 4096, 1000, free + 50, free, 0, 0, 0, 0, 0))
        monkeypatch.setattr(os, "statvfs", lambda _: stat)
        return health.disk(tmp_path)

    assert of(500).state is State.OK
    assert of(120).state is State.WARNING
    assert of(20) == Finding("disk", State.BAD, "98% used")


def test_guest_time_is_not_counted_twice(tree):
    root = tree({"proc/stat": "cpu  100 20 30 800 50 1 2 3 40 5\ncpu0 1 2 3\n"})
    assert health.cpu_times(root) == (156, 1006)
    assert health.cpu_times(root / "nowhere") == (0, 0)


def test_a_program_that_hangs_or_is_missing_or_fails_gives_no_answer(monkeypatch):
    monkeypatch.setattr(health, "_LIMIT", 0.2)
    began = time.monotonic()
    assert health.answer(["sleep", "20"]) is None
    assert time.monotonic() - began < 5
    assert health.answer(["there-is-no-such-program"]) is None
    assert health.answer(["false"]) is None
    assert health.answer(["echo", "x"]) == "x\n"


def test_a_look_that_hangs_does_not_stop_the_picture():
    gate = threading.Event()
    looked = threading.Event()

    def look():
        gate.wait(10)
        looked.set()
        return [Finding("system", State.OK, "ok")]

    watch = health.Watch(look, pause=0.01)
    assert watch() == []
    gate.set()
    assert looked.wait(10)
    until = time.monotonic() + 10
    while not watch() and time.monotonic() < until:
        time.sleep(0.01)
    assert [found.name for found in watch()] == ["system"]
