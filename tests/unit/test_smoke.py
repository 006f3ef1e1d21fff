"""The smoke test as the head runs it: three nodes played by this machine, whole and with each kind of damage."""

from __future__ import annotations

import json
import os
import pwd
import re
import sys
from pathlib import Path

import pytest

from piimage.guest.smoke import main as smoke
from piimage.guest.smoke import reach, roster, survey
from piimage.guest.smoke import report as reports

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
HEAD = os.uname().nodename.partition(".")[0]
NODES = {HEAD: "10.1.10.240", "node1": "10.1.10.241", "node2": "10.1.10.242"}
USER = pwd.getpwuid(os.getuid()).pw_name

SSH = """\
while :; do case $1 in -T) shift ;; -o) shift 2 ;; *) break ;; esac; done
NODE=$1; shift; export NODE PIIMAGE_ROOT="$FAKE/root/$NODE"
[ ! -e "$FAKE/down/$NODE" ] || { echo "ssh: connect to host $NODE port 22: No route to host" >&2; exit 255; }
[ ! -e "$FAKE/denied/$NODE" ] || { echo "ada@$NODE: Permission denied (publickey)." >&2; exit 255; }
[ ! -e "$FAKE/hangs/$NODE" ] || exec sleep 100
exec sh -c "$*"
"""
TOOLS = {
    "ssh": SSH,
    "uname": 'echo "${NODE:-$(cat "$FAKE/head")}"',
    "ip": 'cat "$PIIMAGE_ROOT/addresses"',
    "getent": 'f="$PIIMAGE_ROOT/names/$2"; [ -e "$f" ] && echo "$(cat "$f") STREAM $2"',
    "findmnt": 'cat "$PIIMAGE_ROOT/mounted" 2>/dev/null',
    "systemctl": "echo active",
    "chronyc": "echo 0A,10.1.10.240,10,1,0.0001,0,0,0,0,0,0,0,64,Normal",
    "vcgencmd": "echo throttled=0x0",
    "mpirun.openmpi": 'exec "$FAKE/bin/mpirun" "$@"',
    "mpicc.openmpi": 'exec "$FAKE/bin/mpicc" "$@"',
}
ROUTE = "Iface Destination Gateway Flags RefCnt Use Metric Mask\n{} 00000000 0101A8C0 0003 0 0 0 00000000\n"
DEV = "Inter-| Receive\n{}: 1000 1 0 0 0 0 0 0 2000 1\nwlan0: 1000 1 0 0 0 0 0 0 2000 1\nlo: 5 1 0 0 0 0 0 0 5 1\n"


class Cluster:
    """Three nodes; each has its own root with the files that the probe reads."""

    def __init__(self, place: Path):
        self.place = place
        self.share = place / "share"
        self.share.mkdir()
        self.scenario = {}
        self.roster = {
            "cluster": "lab",
            "nodes": [
                {"name": name, "address": address, "number": number, "role": "x", "slots": 2}
                for number, (name, address) in enumerate(NODES.items())
            ],
            "head": HEAD, "user": USER, "uid": os.getuid(), "gid": os.getgid(),
            "subnet": "10.1.10.0/24", "gateway": None,
            "shares": [{"path": str(self.share), "server": HEAD, "address": NODES[HEAD]}],
            "mpi": {"flavour": "openmpi", "slots": 2},
        }  # fmt: skip
        (place / "head").write_text(HEAD)
        (place / "hostfile").write_text("".join(f"{name} slots=2\n" for name in NODES))
        for name in NODES:
            self._node(name)
        self._tools()

    def _node(self, name):
        address = NODES[name]
        wired = "end0" if name == "node2" else "eth0"
        links = [
            {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
            {"ifname": wired, "addr_info": [{"local": address, "prefixlen": 24}]},
            {"ifname": "wlan0", "addr_info": [{"local": "192.168.1.7", "prefixlen": 24}]},
        ]
        self.put(name, "addresses", json.dumps(links))
        self.put(name, "version", "5.0.7")
        self.put(name, "etc/hosts", "127.0.0.1 localhost\n")
        self.put(name, "etc/os-release", 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n')
        self.put(name, "etc/openmpi/openmpi-mca-params.conf", "btl_tcp_if_include = 10.1.10.0/24\n")
        self.put(name, "etc/openmpi/prte-mca-params.conf", "prte_if_include = 10.1.10.0/24\n")
        self.put(name, "proc/net/route", ROUTE.format("wlan0"))
        self.put(name, "proc/net/dev", DEV.format(wired))
        self.put(name, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
        self.put(name, "sys/class/thermal/thermal_zone0/temp", "48250\n")
        self.put(name, f"sys/class/net/{wired}/speed", "1000\n")
        for other, where in NODES.items():
            self.put(name, f"names/{other}", where)
        if name == HEAD:
            self.put(name, "var/lib/nfs/etab", f"{self.share}\t10.1.10.0/24(rw,sync)\n")
        else:
            self.put(name, "mounted", f"{NODES[HEAD]}:{self.share}\n")

    def _tools(self):
        for name, body in TOOLS.items():
            self.tool(name, body)
        # A node's python3 is the distribution's; another one on this machine's PATH may be a slow wrapper.
        (self.place / "bin" / "python3").symlink_to("/usr/bin/python3")
        for name in ("mpirun", "mpicc"):
            path = self.place / "bin" / name
            path.write_bytes((HERE / "smoke_mpirun.py").read_bytes())
            path.chmod(0o755)

    def tool(self, name, body):
        path = self.place / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link to a program of this machine
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def put(self, node, path, text):
        file = self.place / "root" / node / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def remove(self, node, path):
        (self.place / "root" / node / path).unlink()

    def mark(self, kind, node):
        (self.place / kind).mkdir(exist_ok=True)
        (self.place / kind / node).touch()

    def run(self, *words):
        (self.place / "scenario.json").write_text(json.dumps(self.scenario))
        file = self.place / "cluster.json"
        file.write_text(json.dumps(self.roster))
        return smoke.main(["--roster", str(file), *words])


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    made = Cluster(tmp_path)
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("PIIMAGE_ROOT", str(tmp_path / "root" / HEAD))
    monkeypatch.setattr(reach, "_GRACE", 0.2)
    return made


@pytest.fixture
def report(cluster, capsys):
    """Run it, and give the exit status with the report."""

    def run(*words):
        status = cluster.run("--json", *(words or ("--limit", "20")))
        return status, json.loads(capsys.readouterr().out)

    return run


def checks(found, node):
    (entry,) = [entry for entry in found["nodes"] if entry["name"] == node]
    return {check["name"]: check for check in entry["checks"]}


def test_a_sound_cluster(cluster, report):
    status, found = report()

    assert (status, found["failures"], found["ok"]) == (0, [], True)
    assert (found["version"], found["cluster"]) == (1, "lab")
    assert [(node["name"], node["address"], node["ok"]) for node in found["nodes"]] == [
        (name, address, True) for name, address in NODES.items()
    ]
    mpi = found["mpi"]
    assert (mpi["flavour"], mpi["version"], mpi["ok"]) == ("openmpi", "5.0.7", True)
    assert (mpi["ranks"], mpi["slots"]) == (6, dict.fromkeys(NODES, 2))
    assert len(found["pairs"]) == 3
    assert found["pairs"][0] == {
        "from": HEAD, "to": "node1", "latency_us": 80.0, "bandwidth_mib_s": 100.0,
    }  # fmt: skip
    wired = {row["node"]: row["wired"]["interface"] for row in found["traffic"]}
    assert wired == {HEAD: "eth0", "node1": "eth0", "node2": "end0"}
    assert not any(cluster.share.iterdir())


def test_notes_are_no_failures_and_null_when_they_cannot_be_read(cluster, report):
    cluster.remove("node2", "sys/class/thermal/thermal_zone0/temp")
    cluster.put("node1", "sys/class/net/eth0/speed", "100\n")

    status, found = report()

    node1, node2 = checks(found, "node1"), checks(found, "node2")
    assert status == 0
    assert (node1["temperature"]["ok"], node1["temperature"]["found"]) == (None, "48.2 °C")
    assert node2["temperature"]["found"] is None
    assert node1["throttled"]["found"] == "0x0"
    assert (node1["link"]["found"], node1["link"]["expected"]) == (
        "100 Mbit/s", "1000 Mbit/s (Raspberry Pi 4)",
    )  # fmt: skip


PRTE = "/etc/openmpi/prte-mca-params.conf"
#: Node, file of its root, what it holds, and what is said about that.
DAMAGE = [
    (
        HEAD, "names/node1", "10.1.10.7",
        f"{HEAD}: names lead to wrong addresses: `node1` to 10.1.10.7 (expected 10.1.10.241)",
    ),
    (HEAD, "var/lib/nfs/etab", "/x *(rw)\n", f"{HEAD}: SHARE is not exported: nfs-server does not list it"),
    ("node1", "etc/hosts", "changed", f"node1: /etc/hosts differs from that of {HEAD}"),
    (
        "node1", "names/node1", "127.0.1.1",
        "node1: its own name leads to 127.0.1.1, expected 10.1.10.241",
    ),
    (
        "node1", "names/node2", "10.1.10.99",
        "node1: names lead to wrong addresses: `node2` to 10.1.10.99 (expected 10.1.10.242)",
    ),
    ("node1", "addresses", "[]", "node1: no interface has 10.1.10.241/24: there is no address"),
    ("node1", "mounted", "", f"node1: SHARE is not mounted from {HEAD}"),
    (
        "node1", "etc/openmpi/openmpi-mca-params.conf", "#btl_tcp_if_include = 10.1.10.0/24\n",
        "node1: MPI is not held to the wire: btl_tcp_if_include is not set, expected 10.1.10.0/24",
    ),
    (
        "node1", PRTE[1:],
        "prte_if_include = 10.1.10.0/24\nprte_if_include = wlan0\n",
        "node1: MPI is not held to the wire: PRTE says prte_if_include = wlan0, expected 10.1.10.0/24",
    ),
    (
        "node2", "etc/os-release", "VERSION_CODENAME=bookworm\n",
        "node2: release is bookworm, expected trixie",
    ),
    (
        "node2", "proc/net/route", ROUTE.format("end0"),
        "node2: the default route leads over the wire (end0), which ends at the other nodes",
    ),
    (
        "node2", "mounted", "10.9.9.9:/other\n",
        f"node2: SHARE is not mounted from {HEAD}, but from 10.9.9.9:/other",
    ),
    ("node2", "version", "5.0.8", "node2: `mpirun` is openmpi 5.0.8, expected openmpi 5.0.7"),
    (
        # What becomes of a line that is appended to a file without a newline at its end.
        "node2", "etc/openmpi/openmpi-mca-params.conf",
        "osc = ^ucx,pt2ptbtl_tcp_if_include = 10.1.10.0/24\n",
        "node2: MPI is not held to the wire: btl_tcp_if_include is not set, expected 10.1.10.0/24",
    ),
]  # fmt: skip


def test_each_damage_is_told_in_words_and_nothing_else(cluster, report):
    for node, path, text, _ in DAMAGE:
        cluster.put(node, path, text)

    status, found = report()

    assert (status, found["ok"]) == (1, False)
    expected = [w.replace("SHARE", str(cluster.share)).replace("PRTE", PRTE) for *_, w in DAMAGE]
    assert found["failures"] == expected
    assert [node["ok"] for node in found["nodes"]] == [False, False, False]


def test_another_number_of_the_user_is_told(cluster, report):
    cluster.roster["uid"] += 1

    _, found = report()

    assert found["failures"][0] == (
        f"{HEAD}: user {USER} has uid {os.getuid()} and gid {os.getgid()},"
        f" expected {os.getuid() + 1} and {os.getgid()}"
    )


def test_a_file_of_the_head_that_does_not_arrive(cluster, report):
    """The share is mounted, and it is another one."""
    cluster.tool("cat", '[ $# -gt 0 ] && [ "$NODE" = node2 ] && exit 1; exec /bin/cat "$@"')

    _, found = report()

    assert any(
        failure == f"node2: a file that {HEAD} wrote into {cluster.share} cannot be read"
        for failure in found["failures"]
    )
    assert found["mpi"]["ok"] is True  # the program was copied instead


def test_a_share_that_was_taken_away_while_it_was_mounted(cluster, report):
    cluster.tool(
        "ls",
        '[ "$NODE" != node2 ] || { echo "ls: cannot access: Stale file handle" >&2; exit 2; }\n'
        'exec /bin/ls "$@"',
    )

    status, found = report("--nodes")

    said = "but cannot be used: ls: cannot access: Stale file handle"
    assert found["failures"] == [f"node2: {cluster.share} is mounted from {HEAD}, {said}"]
    assert status == 1


def test_the_nodes_alone_are_quick_and_run_no_mpi(cluster, report, capsys):
    cluster.scenario = {"hang": "broadcast"}

    status, found = report("--nodes")

    assert (status, found["failures"], found["mpi"]["ok"]) == (0, [], None)
    assert (found["pairs"], found["traffic"]) == ([], [])
    assert checks(found, "node1")["MPI version"]["ok"] is True
    assert cluster.run("--nodes") == 0
    assert "openmpi: not tried\n" in capsys.readouterr().out


def test_a_file_with_another_owner(cluster, report):
    cluster.tool("stat", '[ "$NODE" = node1 ] && echo "65534 65534" || exec /usr/bin/stat "$@"')

    _, found = report()

    assert f"belongs to 65534 65534 here, expected {os.getuid()}" in found["failures"][0]


def test_a_kernel_of_another_width_is_no_other_architecture(cluster, report):
    """Raspberry Pi OS for armhf starts the 64-bit kernel on newer boards."""
    cluster.tool(
        "python3",
        '[ "$NODE" = node2 ] && exec setarch linux32 /usr/bin/python3 "$@"\n'
        'exec /usr/bin/python3 "$@"',
    )

    status, found = report("--nodes")

    assert (status, found["failures"]) == (0, [])
    assert checks(found, "node2")["architecture"]["found"] == sys.implementation._multiarch


def test_programs_of_another_architecture_are_told(cluster, report):
    other = "import sys; sys.implementation._multiarch = 'arm-linux-gnueabihf'"
    cluster.tool(
        "python3",
        f'[ "$NODE" = node2 ] || exec /usr/bin/python3 "$@"\n'
        f'exec /usr/bin/python3 -c "{other}; $3"',
    )

    status, found = report("--nodes")

    expected = sys.implementation._multiarch
    assert (status, found["failures"]) == (
        1, [f"node2: architecture is arm-linux-gnueabihf, expected {expected}"]
    )  # fmt: skip


def test_a_clock_that_is_off(cluster, report, monkeypatch):
    shift = cluster.place / "shift.py"
    shift.write_text("import time\n_now = time.time\ntime.time = lambda: _now() + 30\n")
    cluster.tool(
        "python3",
        f'[ "$NODE" = node2 ] || exec /usr/bin/python3 "$@"\n'
        f"exec /usr/bin/python3 -c \"exec(open('{shift}').read()); $3\"",
    )

    _, found = report()

    assert found["failures"] == [
        f"node2: its clock is 30.0 s ahead of that of {HEAD}; chrony: normal"
    ]


def test_a_node_that_is_down_is_named_and_the_rest_goes_on(cluster, report):
    cluster.mark("down", "node1")

    status, found = report()

    assert status == 1
    assert found["failures"] == [
        "node1: no answer over ssh (10.1.10.241): ssh: connect to host node1 port 22: No route to host"
    ]
    assert (found["mpi"]["ok"], found["mpi"]["ranks"]) == (True, 4)
    assert [(pair["from"], pair["to"]) for pair in found["pairs"]] == [(HEAD, "node2")]


def test_a_node_that_lets_nobody_in_is_told_with_its_likely_cause(cluster, report):
    cluster.mark("denied", "node1")

    (said,) = report("--nodes")[1]["failures"]
    assert said.startswith(
        "node1: no answer over ssh (10.1.10.241): ada@node1: Permission denied (publickey)."
    )
    assert said.endswith(
        f"; {USER} has another uid there than the home's owner, or not the cluster's key"
    )


def test_a_node_that_hangs_costs_no_more_than_the_limit(cluster, report):
    cluster.mark("hangs", "node2")

    _, found = report("--limit", "2")

    assert found["failures"] == ["node2: no answer over ssh (10.1.10.242): no answer within 2 s"]
    assert found["seconds"] < 30


def test_nul_bytes_of_open_mpi_change_nothing(cluster, report):
    """Version 5 puts some between and into the lines of remote processes."""
    real = cluster.place / "bin/real"
    (cluster.place / "bin/mpirun").rename(real)
    cluster.tool("mpirun", f"{real} \"$@\" | sed 's/^/\\x00/; s/,/\\x00,/'")

    status, found = report()

    assert (status, found["failures"], found["mpi"]["ranks"]) == (0, [], 6)
    assert len(found["pairs"]) == 3
    assert "\0" not in json.dumps(found)
    assert "u0000" not in json.dumps(found)


@pytest.mark.parametrize(("limit", "seconds"), [("20", ["5", "5"]), ("720", ["20", "60"])])
def test_a_message_and_a_measurement_have_their_share_of_the_time(cluster, report, limit, seconds):
    """A first answer takes 20 s at most, so that a fault is named while there is time for the others."""
    assert report("--limit", limit)[0] == 0
    assert json.loads((cluster.place / "program").read_text())[-2:] == seconds


def test_a_program_that_hangs_is_named_with_its_stage(cluster, report):
    cluster.scenario = {"hang": "broadcast"}

    _, found = report("--limit", "2")

    words = f"the MPI program on {HEAD}, node1, node2 hung in `broadcast`: no end within its time"
    assert words in found["failures"]
    assert f"MPI fails on {HEAD} and node1 alone, too: no end within its time" in found["failures"]
    assert (found["mpi"]["ok"], found["seconds"] < 60) == (False, True)


def test_a_node_on_which_nothing_starts_is_left_out(cluster, report):
    cluster.scenario = {"broken": ["node2"]}

    _, found = report()

    why = "ssh: connect to host node2 port 22: Connection refused"
    assert found["failures"] == [
        f"`mpirun` on {HEAD}, node1, node2 failed: {why}",
        f"MPI fails on {HEAD} and node2 alone, too: {why}",
    ]
    assert [(pair["from"], pair["to"]) for pair in found["pairs"]] == [(HEAD, "node1")]


def test_two_workers_that_do_not_reach_each_other_are_named(cluster, report):
    cluster.scenario = {"apart": ["node1", "node2"]}

    _, found = report()

    words = "MPI fails on node1 and node2 alone, too: At least one pair of MPI processes are unable"
    assert any(failure.startswith(words) for failure in found["failures"])
    assert not any(f"on {HEAD} and node" in failure for failure in found["failures"])


def test_fewer_processes_than_slots(cluster, report):
    cluster.scenario = {"fewer": {"node1": 1}}

    _, found = report()

    assert found["failures"] == [
        f"`mpirun uname -n` started {HEAD} 2, node1 1, node2 2, expected {HEAD} 2, node1 2, node2 2"
    ]
    assert found["mpi"]["slots"]["node1"] == 1


def test_a_wrong_result_and_a_missing_compiler(cluster, report):
    cluster.scenario = {"wrong": "allreduce"}
    assert report()[1]["failures"] == [f"allreduce gave a wrong result on {HEAD}"]

    cluster.scenario = {"compiler": "gone"}
    assert report()[1]["failures"] == [
        f"`mpicc.openmpi` on {HEAD} failed: mpicc: error: no such file: mpi.h"
    ]


def test_messages_that_left_the_wire(cluster, report):
    cluster.scenario = {"interfaces": ["wlan0"]}

    _, found = report()

    (words,) = found["failures"]
    assert words.startswith(
        f"MPI left the wire: wlan0 of {HEAD} 50.0 MiB (eth0 0.0 MiB), wlan0 of node1"
    )


def test_without_a_share_the_program_is_copied(cluster, report):
    cluster.roster["shares"] = []

    status, found = report()

    assert (status, found["mpi"]["ok"]) == (0, True)
    program, *_ = json.loads((cluster.place / "program").read_text())
    assert program.startswith("/tmp/piimage-smoke-")
    assert not Path(program).parent.exists()


def test_without_mpi_the_nodes_alone_are_tested(cluster, report):
    cluster.roster["mpi"] = None

    status, found = report()

    assert (status, found["mpi"]["ok"], found["mpi"]["flavour"]) == (0, None, None)
    assert "MPI version" not in checks(found, "node1")


def test_a_gateway_on_the_wire_must_have_the_default_route(cluster, report):
    cluster.roster["gateway"] = "10.1.10.1"
    for name, port in zip(NODES, ("eth0", "eth0", "end0"), strict=True):
        cluster.put(name, "proc/net/route", ROUTE.format(port))
    assert report()[0] == 0

    cluster.put("node1", "proc/net/route", ROUTE.format("wlan0"))
    status, found = report()

    assert (status, checks(found, "node1")["default route"]["ok"]) == (1, False)


def test_mpich_is_judged_by_its_own_settings(cluster, report):
    cluster.roster["mpi"]["flavour"] = "mpich"
    (cluster.place / "hostfile").write_text("".join(f"{name}:2\n" for name in NODES))
    cluster.tool(
        "mpirun",
        f'[ "$1" = --version ] || exec {cluster.place}/bin/real "$@"\n'
        "echo 'HYDRA build details:\n    Version:          4.2.1\n    x: --with-device=ch4:ucx'",
    )
    real = cluster.place / "bin/real"
    real.write_bytes((HERE / "smoke_mpirun.py").read_bytes())
    real.chmod(0o755)
    for name in NODES:
        wired = "end0" if name == "node2" else "eth0"
        cluster.put(name, "etc/ucx/ucx.conf", f"UCX_NET_DEVICES={wired}\n")
    status, found = report()
    assert (status, found["failures"], found["mpi"]["version"]) == (0, [], "4.2.1")

    cluster.put("node2", "etc/ucx/ucx.conf", "UCX_NET_DEVICES=eth0\n")
    assert report()[1]["failures"] == [
        "node2: MPI is not held to the wire: /etc/ucx/ucx.conf says UCX_NET_DEVICES = eth0, expected end0"
    ]


def test_the_table_says_the_same(cluster, capsys):
    cluster.mark("down", "node1")
    cluster.put("node2", "etc/hosts", "changed")

    assert cluster.run("--limit", "20") == 1

    text = capsys.readouterr().out
    assert re.search(r"^node1 +10\.1\.10\.241 +no answer$", text, re.MULTILINE)
    assert re.search(r"^node2 +10\.1\.10\.242 +ok +ok +FAILED ", text, re.MULTILINE)
    assert "openmpi 5.0.7, 4 ranks\n" in text
    assert "48.2 °C" in text
    assert f"failed: node2: /etc/hosts differs from that of {HEAD}\n" in text
    assert text.endswith(" s\n")


def test_a_narrow_terminal_gets_narrow_tables(cluster, capsys):
    found = json.loads((cluster.run("--json", "--limit", "20"), capsys.readouterr().out)[1])

    wide, narrow = reports.table(found), reports.table(found, 40)

    rows = [line for line in narrow.splitlines() if line.startswith((HEAD, "node"))]
    assert max(map(len, rows)) <= 40
    assert max(map(len, wide.splitlines())) > 80
    assert sum(line.startswith("node1") for line in rows) > sum(
        line.startswith("node1") for line in wide.splitlines()
    )
    assert sorted(set(narrow.split())) == sorted(set(wide.split()))


def test_the_report_is_written_too(cluster, capsys):
    target = cluster.place / "smoke.json"

    assert cluster.run("--output", str(target), "--wait", "5", "--limit", "20") == 0

    assert json.loads(target.read_text())["ok"] is True
    assert target.stat().st_mode & 0o777 == 0o644
    assert "lab: all is well" in capsys.readouterr().out


def test_waiting_is_for_clocks_that_chrony_has_yet_to_set(cluster, report, monkeypatch):
    monkeypatch.setattr(survey, "_PAUSE", 0.1)
    cluster.tool(
        "chronyc",
        'asked="$PIIMAGE_ROOT/asked"; echo >> "$asked"; leap=Normal\n'
        '[ "$NODE" != node1 ] || [ "$(wc -l < "$asked")" -gt 2 ] || leap="Not synchronised"\n'
        'echo "0A,10.1.10.240,10,1,0.0001,0,0,0,0,0,0,0,64,$leap"',
    )

    status, found = report("--wait", "60", "--limit", "20")

    assert status == 0
    asked = {name: (cluster.place / "root" / name / "asked").read_text() for name in NODES}
    assert {name: len(lines) for name, lines in asked.items()} == {HEAD: 2, "node1": 4, "node2": 2}
    (clock,) = (c for c in found["nodes"][1]["checks"] if c["name"] == "clock")
    assert clock["found"].endswith("chrony: normal")


def test_waiting_ends_when_the_time_is_over(cluster, report):
    cluster.mark("down", "node1")

    status, found = report("--wait", "1", "--limit", "20")

    assert status == 1
    assert found["seconds"] < 15


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user": "nobody-else"}, "run it as nobody-else: sudo -iu nobody-else piimage-smoke"),
        ({"head": "node1"}, "run it on node1, which reaches all nodes"),
        ({"nodes": 1}, "is not the roster of a cluster"),
    ],
)
def test_called_in_the_wrong_place(cluster, capsys, change, words):
    cluster.roster |= change

    assert cluster.run() == 2
    assert words in capsys.readouterr().err


def test_no_roster(capsys, tmp_path):
    assert smoke.main(["--roster", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_roster_is_what_the_component_writes(tmp_path):
    import phony_facts as phony  # noqa: PLC0415 -- only here

    from piimage.cluster import Mpi, Share  # noqa: PLC0415 -- only here
    from piimage.components import roster as component  # noqa: PLC0415 -- only here

    share = Share(path="/srv/x", server="node0")
    written = component.roster(phony.cluster(mpi=Mpi(flavour="mpich", slots=3), shares=(share,)))
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(written, indent=1) + "\n" * 4096)

    found = roster.load(str(path))

    assert (found.flavour, found.node("node2").slots, found.shares[0].server) == (
        "mpich",
        3,
        "node0",
    )


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ("\0\nssh: connect to host a: No route\r\n---\nPRTE has lost\n---\n", "ssh: connect to host a: No route"),
        ("---\nThere are not\nenough slots.\n\nMore of it.\n---\n", "There are not enough slots."),
        ("[a:1] plm:ssh: Warning: setpgid(1) failed: Permission denied(13)\nlast\n", "last"),
        ("ada@node1: Permission denied (publickey).\n", "ada@node1: Permission denied (publickey)."),
        (("[proxy:1@b] HYDU_create_process (lib/utils/launch.c:73): execvp error on file /x (Text file busy)\n"
         "[mpiexec@a] main (mpiexec/mpiexec.c:260): process manager error waiting for completion\n"),
         "b: execvp error on file /x (Text file busy)"),
        ("", "exit status 3"),
    ],
)  # fmt: skip
def test_the_telling_line_of_an_error(errors, words):
    assert reach.Said(3, "", errors).why == words
