"""Three nodes of one cluster.yaml, as `build --all` leaves them, on one wire: they find each other and compute,
nobody touches the second NIC before the test does, and when the head dies the workers still switch off.

All of it is one boot, since a boot is what takes the time. Before the head dies, each thing that the smoke test is
there to find is done to the cluster, found, and undone.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import laptop
import pytest

REPOSITORY = Path(__file__).parents[2]
CLUSTER = """\
version: 1
name: trio
users:
  - {name: ada, uid: 1000, sudo: nopasswd}
  - {name: ops, uid: 1001, sudo: nopasswd}
network:
  wired: {subnet: 192.168.77.0/28, first: 192.168.77.3}
shares: [{path: /srv/cluster, server: head}]
mpi: {flavour: openmpi, slots: 4}
nodes: {count: 3, name: "n{n}"}
"""
NODES = ["n0", "n1", "n2"]
HELD = "running until Ctrl-C"


@dataclass(frozen=True)
class Fault:
    """What root does to nodes and how it is undone, how sentences of the smoke test begin, and about whom they are."""

    nodes: list[str]
    made: str
    undone: str
    words: list[str]
    blamed: list[str]
    options: str = "--nodes"


PARAMS = "/etc/openmpi/openmpi-mca-params.conf"
#: A second network between the nodes: the wire itself under another name, for MPI to go astray on.
SPARE = """
set -e
read -r _ wire _ address _ <<EOF
$(ip -4 -o address show | grep -F ' 192.168.77.')
EOF
modprobe macvlan
ip link add spare0 link "$wire" type macvlan mode bridge
address=${address%/*}
ip address add "10.77.7.${address##*.}/24" dev spare0
ip link set spare0 up
"""
FAULTS = {
    "wrong uid": Fault(
        nodes=["n1"],
        made="sed -i 's/^ada:x:1000:/ada:x:1777:/' /etc/passwd && chown -R 1777 /home/ada",
        undone="sed -i 's/^ada:x:1777:/ada:x:1000:/' /etc/passwd && chown -R 1000 /home/ada",
        words=["n1: user ada has uid 1777 and gid 1000, expected 1000 and 1000"],
        blamed=["n1"],
    ),
    "wrong address in hosts": Fault(
        nodes=["n2"],
        made=r"sed -i 's/^192\.168\.77\.4\b/192.168.77.9/' /etc/hosts",
        undone=r"sed -i 's/^192\.168\.77\.9\b/192.168.77.4/' /etc/hosts",
        words=[
            "n2: /etc/hosts differs from that of n0",
            "n2: names lead to wrong addresses: `n1` to 192.168.77.9 (expected 192.168.77.4)",
        ],
        blamed=["n2"],
    ),
    "share not exported": Fault(
        nodes=["n0"],
        made="mv /etc/exports.d/piimage.exports /root/ && exportfs -ra",
        undone="mv /root/piimage.exports /etc/exports.d/ && exportfs -ra",
        # The others say that their mount cannot be used, that there is none, or that a file is not to be had:
        # what their caches still hold decides.
        words=["n0: /srv/cluster is not exported: nfs-server does not list it"],
        blamed=NODES,
    ),
    "MPI on the wrong interface": Fault(
        nodes=NODES,
        made=f"{SPARE}sed -i 's|^btl_tcp_if_include = .*|btl_tcp_if_include = 10.77.7.0/24|' {PARAMS}",
        undone="ip link delete spare0;"
        f" sed -i 's|^btl_tcp_if_include = .*|btl_tcp_if_include = 192.168.77.0/28|' {PARAMS}",
        words=[
            *(
                f"{node}: MPI is not held to the wire: {PARAMS} says"
                " btl_tcp_if_include = 10.77.7.0/24, expected 192.168.77.0/28"
                for node in NODES
            ),
            "MPI left the wire: spare0 of n0 ",
        ],
        blamed=NODES,
        options="",
    ),
}
#: Seconds for a part of the smoke test: three emulated nodes on two processors.
PART = 300


class Running:
    """`piimage boot`, while it runs; its stderr goes to a file."""

    def __init__(self, place, *words):
        self.log = place / "stderr"
        argv = [sys.executable, "-m", "piimage", "boot", *map(str, words)]
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, cwd=REPOSITORY)

    def wait_for(self, text, limit):
        """Wait until stderr has `text`, or the process has ended."""
        deadline = time.monotonic() + limit
        while self.child.poll() is None and text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(1)

    def interrupt(self):
        self.child.send_signal(signal.SIGINT)

    def end(self, limit=900):
        """Exit status and stdout."""
        out, _ = self.child.communicate(timeout=limit)
        sys.stderr.write(self.log.read_text())
        return self.child.returncode, out.decode()


def processes(words):
    """Command lines on this machine in which all of `words` occur."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(line)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory, default_base, piimage):
    """The cluster's file, with variants and stamps beside it."""
    path = tmp_path_factory.mktemp("trio") / "cluster.yaml"
    path.write_text(CLUSTER)
    assert piimage("build", path, "--all").returncode == 0
    return path


@pytest.fixture(scope="module")
def built(source):
    return source.parent / "dist" / "trio"


def find(fault, ssh):
    """Make a fault, run the smoke test, undo the fault: exit status, report, and seconds of the test."""
    for node in fault.nodes:
        assert ssh(node, f"sudo -n sh -c {shlex.quote(fault.made)}").returncode == 0
    began = time.monotonic()
    done = ssh("n0", f"piimage-smoke --json --limit {PART} {fault.options}")
    took = time.monotonic() - began
    for node in fault.nodes:
        assert ssh(node, f"sudo -n sh -c {shlex.quote(fault.undone)}").returncode == 0
    return done.returncode, json.loads(done.stdout), took


@pytest.fixture(scope="module")
def played(source, built, piimage):
    """One rehearsal with everything in it: exit status, report, what ssh said, what was there before, faults."""

    def ssh(node, command):
        return piimage("ssh", "-c", source, node, command, timeout=4 * PART)

    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}
    running = Running(source.parent, source, "--all", "--smoke", "--kill", "n0", "--keep", "--json")
    running.wait_for(HELD, 2400)
    at_keep = ssh("n1", "uname -n")
    try:
        home = source.parent / "export"
        piimage("export", "ssh-config", "-c", source, "--head", "n0.local", "-o", home)
        way = laptop.config(home / "ssh_config", built / "rehearsal", "n0")
        asked = {node: laptop.ask(way, node, "uname -n; echo $SSH_CLIENT") for node in NODES}
        faults = {name: find(fault, ssh) for name, fault in FAULTS.items()}
        mended = json.loads(ssh("n0", "piimage-smoke --json --nodes").stdout)
    finally:
        running.interrupt()
    status, out = running.end()
    return {
        "status": status, "report": json.loads(out), "ssh": at_keep, "before": before,
        "faults": faults, "mended": mended, "laptop": asked,
    }  # fmt: skip


def test_everything_went_well(played):
    report = played["report"]

    assert report["problems"] == []
    assert (played["status"], report["ok"], report["error"]) == (0, True, None)
    assert [node["name"] for node in report["nodes"]] == NODES


def test_nothing_that_was_built_changed(played):
    for path, mtime in played["before"].items():
        assert path.stat().st_mtime_ns == mtime
    assert not [path for path in played["before"] if path.suffix == ".img" and path.stem in NODES]


@pytest.mark.parametrize("name", NODES)
def test_a_node_kept_its_promises_and_its_hands_off_the_second_nic(played, built, name):
    report = json.loads((built / "rehearsal" / name / "report.json").read_bytes())
    found = {finding["name"]: finding for finding in report["findings"]}

    assert [f for f in found.values() if f["ok"] is not True] == []
    assert found["second NIC"]["found"] == "down, without an address or a route"
    others = {f"plan: reaches {other}" for other in NODES if other != name}
    assert others <= set(found)
    assert report["stamp"].endswith(f"stamps/{name}.stamp")
    assert f"{name} login:" in (built / "rehearsal" / name / "console.log").read_text(
        errors="replace"
    )


def test_the_cluster_computes_over_the_wire_alone(played, built):
    smoke = played["report"]["smoke"]

    assert (smoke["ok"], smoke["failures"]) == (True, [])
    assert smoke["mpi"]["ranks"] == 12
    assert {(pair["from"], pair["to"]) for pair in smoke["pairs"]} == {
        ("n0", "n1"), ("n0", "n2"), ("n1", "n2"),
    }  # fmt: skip
    assert all(pair["latency_us"] > 0 < pair["bandwidth_mib_s"] for pair in smoke["pairs"])
    for row in smoke["traffic"]:
        carried = sum(o["tx_bytes"] + o["rx_bytes"] for o in row["other"])
        assert carried < 0.02 * (row["wired"]["tx_bytes"] + row["wired"]["rx_bytes"])
    place = built / "rehearsal"
    assert json.loads((place / "smoke.json").read_bytes()) == smoke
    assert json.loads((place / "cluster.json").read_bytes()) == played["report"]
    assert "<svg" in (place / "smoke.html").read_text()


@pytest.mark.parametrize("name", NODES)
def test_a_laptop_is_let_in_without_a_question_and_through_the_head(played, name):
    done = played["laptop"][name]

    assert done.returncode == 0, done.stderr
    host, came_from, *_ = done.stdout.split()
    assert host == name
    assert (came_from == "192.168.77.3") == (name != "n0")


@pytest.mark.parametrize("name", FAULTS)
def test_the_smoke_test_says_what_is_wrong_and_where(played, name):
    status, report, took = played["faults"][name]

    sys.stderr.write(f"{name}: {took:.0f} s\n" + "".join(f"  {w}\n" for w in report["failures"]))
    assert (status, report["ok"]) == (1, False)
    for words in FAULTS[name].words:
        assert [said for said in report["failures"] if said.startswith(words)]
    assert [node["name"] for node in report["nodes"] if not node["ok"]] == FAULTS[name].blamed
    assert took < PART


def test_what_was_undone_is_no_longer_told(played):
    assert (played["mended"]["failures"], played["mended"]["ok"]) == ([], True)


def test_what_no_card_does_is_declared(played):
    said = "\n".join(played["report"]["additions"])

    assert "console=ttyAMA0" in said
    assert "second NIC was brought up over ssh" in said


def test_the_workers_outlive_the_head_and_switch_off_without_it(played, built):
    assert played["report"]["killed"] == "n0"
    assert (played["ssh"].returncode, played["ssh"].stdout.strip()) == (0, "n1")
    for name in ("n1", "n2"):
        report = json.loads((built / "rehearsal" / name / "report.json").read_bytes())
        found = {finding["name"]: finding for finding in report["findings"]}
        assert found["share /srv/cluster"]["found"] == "in use, written to"
        assert found["power off"]["ok"]


def test_no_secret_is_in_what_a_rehearsal_keeps(played, source, built):
    place = built / "rehearsal"
    kept = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    for key in [
        source.with_suffix(".state") / "id",
        *(source.with_suffix(".state") / "hosts" / n for n in NODES),
    ]:
        assert key.read_bytes().split(b"\n")[3] not in kept
    assert not list(place.rglob("scratch"))


def test_ctrl_c_leaves_nothing(source, tmp_path, played):
    running = Running(tmp_path, source, "--all")
    console = source.parent / "dist" / "trio" / "rehearsal" / "n2" / "console.log"
    deadline = time.monotonic() + 300
    started: list[str] = []
    while not started or not console.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        # setpriv is what becomes QEMU
        found = processes(["qemu-system-aarch64", str(console)])
        started = [line for line in found if "setpriv" not in line]
    sockets = Path(re.search(r"local\.path=([^,]*)/", started[0])[1])
    assert sockets.is_dir()

    running.interrupt()

    assert running.end(60)[0] == 130
    time.sleep(1)
    assert processes([str(sockets)]) == []
    assert processes([os.fspath(source.parent / "dist")]) == []
    assert not sockets.exists()
    assert not list(console.parent.parent.rglob("scratch"))
