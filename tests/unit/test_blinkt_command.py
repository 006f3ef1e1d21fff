"""`piimage-blinkt`: who is asked for what, on this node and on others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from piimage.guest.blinkt import control, remote
from piimage.guest.blinkt.health import Share

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]


OWN = control.Wish("status", 4)


def test_without_a_request_the_nodes_own_setting_counts(tmp_path):
    assert control.wished(OWN, 5.0, tmp_path / "none") == OWN


def test_a_request_without_an_end_lasts(tmp_path):
    path = tmp_path / "run" / "request"
    control.ask(control.Wish("larson", 9), path)
    assert control.wished(OWN, 1e9, path) == control.Wish("larson", 9)
    assert [item.name for item in path.parent.iterdir()] == ["request"]


@pytest.mark.parametrize("before", [None, control.Wish("load", 7), control.Wish("off", 7)])
def test_a_request_with_an_end_goes_back_to_what_lasted(tmp_path, before):
    path = tmp_path / "request"
    if before:
        control.ask(before, path)
    control.ask(control.Wish("larson", 9, until=50.0), path)
    control.ask(control.Wish("locate", 20, until=100.0), path)

    assert control.wished(OWN, 99.0, path) == control.Wish("locate", 20, until=100.0)
    assert control.wished(OWN, 100.0, path) == (before or OWN)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"show": "disco", "brightness": 99, "until": "never"}', '{"show": 1}', "\xff"],
)
def test_a_request_that_makes_no_sense_is_the_own_setting(tmp_path, text):
    path = tmp_path / "request"
    path.write_text(text, encoding="latin-1")
    assert control.wished(OWN, 5.0, path) == OWN


def test_the_setting_of_the_image_is_read(tmp_path):
    path = tmp_path / "blinkt.json"
    path.write_text(
        json.dumps(
            {"show": "load", "brightness": 31, "shares": [{"path": "/srv/x", "server": "n0"}, 5]}
        )
    )
    found = control.settings(path)
    assert found.wish == control.Wish("load", 31)
    assert found.shares == (Share("/srv/x", "n0"),)
    assert control.settings(tmp_path / "none").wish.show == "status"


class Desk:
    """Where the command runs in a process of its own, with programs of ours first on PATH, which may write to `log`."""

    def __init__(self, tmp):
        self.tmp, self.log = tmp, tmp / "log"
        self.place = tmp / "bin"
        self.place.mkdir()

    def program(self, name, text):
        path = self.place / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, *argv, code=None):
        start = ["-c", code] if code else ["-m", "piimage.guest.blinkt"]
        env = {
            **os.environ,
            "PATH": f"{self.place}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LOG": str(self.log),
        }
        return subprocess.run(
            [sys.executable, *start, *argv],
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
            check=False,
        )


class Blinkt(Desk):
    """Runs the command, or `code` that does."""

    def __call__(self, *argv, code=None):
        return self.run(*argv, code=code)


@pytest.fixture
def blinkt(tmp_path):
    return Blinkt(tmp_path)


@pytest.mark.parametrize("show", [*control.SHOWS, "off"])
def test_every_show_can_be_simulated(blinkt, show):
    done = blinkt(show, "--simulate", "--seconds", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_options_may_stand_before_the_show(blinkt):
    done = blinkt("--simulate", "--seconds", "0", "--brightness", "31", "locate")
    assert done.stdout == "ffffff@31 " * 8 + " locate\n"


@pytest.mark.parametrize(
    "argv",
    [
        ("disco",), (), ("load", "--brightness", "0"), ("load", "--brightness", "32"), ("load", "--brightness", "x"),
        ("load", "--seconds", "-1"), ("load", "--seconds", "nan"), ("load", "--seconds", "inf"),
    ],
)  # fmt: skip
def test_wrong_usage_is_status_2_with_a_reason(blinkt, argv):
    done = blinkt(*argv)
    assert done.returncode == 2
    assert "piimage-blinkt: error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_simulation_ends_well_on_a_signal(blinkt):
    argv = [sys.executable, "-m", "piimage.guest.blinkt", "larson", "--simulate"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


HARNESS = """\
import sys
from pathlib import Path
import fake_gpiod
from piimage.guest.blinkt import apa102, command, control, lines

tmp = Path({tmp!r})
chain = apa102.Chain()
kernel = fake_gpiod.Kernel({{str(tmp / "dev" / "gpiochip0"): ({label!r}, 58)}}, listen=chain.level)
(tmp / "dev").mkdir(exist_ok=True)
(tmp / "dev" / "gpiochip0").touch()
lines.DEVICES, control.SETTINGS, control.REQUEST = tmp / "dev", tmp / "settings", tmp / "run" / "request"
control.settings.__defaults__ = (control.SETTINGS,)
control.wished.__defaults__ = control.ask.__defaults__ = (control.REQUEST,)
sys.modules["gpiod"] = fake_gpiod.version_2(kernel)
command.os.geteuid = lambda: {uid}
if {held}:
    kernel.held[str(tmp / "dev" / "gpiochip0"), 23] = "other"
status = command.main()
print("bar", {{tuple(p) if p else None for p in chain.pixels}}, "held", sorted(kernel.held.values()))
sys.exit(status)
"""


class OnANode(Desk):
    """Runs the command as on a Pi 4; `systemctl` is logged."""

    def __init__(self, tmp):
        super().__init__(tmp)
        self.request = tmp / "run" / "request"
        self.program("systemctl", 'echo "$@" >>"$LOG"')

    def __call__(self, *argv, label="pinctrl-bcm2711", uid=0, held=False):
        code = HARNESS.format(tmp=str(self.tmp), label=label, uid=uid, held=held)
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}"
        done = self.run(*argv, code=code)
        assert "Traceback" not in done.stderr, done.stderr
        return done


@pytest.fixture
def on_a_node(tmp_path):
    return OnANode(tmp_path)


def test_a_show_is_put_down_and_the_unit_started_anew(on_a_node):
    done = on_a_node("load", "--brightness", "9")

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(on_a_node.request.read_text()) == {"show": "load", "brightness": 9}
    assert (
        on_a_node.log.read_text() == "stop piimage-blinkt.service\nstart piimage-blinkt.service\n"
    )


def test_locate_has_an_end_and_is_bright(on_a_node):
    before = time.monotonic()
    on_a_node("locate")
    wanted = json.loads(on_a_node.request.read_text())
    assert (wanted["show"], wanted["brightness"]) == ("locate", 16)
    assert before + 50 < wanted["until"] < time.monotonic() + 61


def test_off_stops_whatever_shows_and_leaves_the_bar_dark(on_a_node):
    done = on_a_node("off")
    assert done.returncode == 0
    assert on_a_node.log.read_text() == "stop piimage-blinkt.service\n"
    assert json.loads(on_a_node.request.read_text())["show"] == "off"
    assert done.stdout == "bar {(0, 0, 0, 0)} held []\n"


def test_the_unit_shows_nothing_after_off(on_a_node):
    on_a_node("off")
    done = on_a_node("run")
    assert (done.returncode, done.stdout) == (0, "bar {(0, 0, 0, 0)} held []\n")


def test_the_unit_shows_what_was_asked_for_and_leaves_the_bar_dark(on_a_node):
    (on_a_node.tmp / "settings").write_text('{"show": "off", "brightness": 3}')
    on_a_node("locate", "--seconds", "1.5")

    done = on_a_node("run")

    assert done.returncode == 0
    assert done.stdout.startswith("locate on ")
    assert done.stdout.endswith("bar {(0, 0, 0, 0)} held []\n")


def test_a_node_without_a_header_is_refused_but_has_nothing_to_clear(on_a_node):
    label = "9030000.pl061"
    for argv in (("load",), ("probe",), ("run",)):
        done = on_a_node(*argv, label=label)
        assert done.returncode == 1
        assert "no GPIO chip of a Raspberry Pi" in done.stderr
    for argv in (("off",), ("clear",)):
        assert on_a_node(*argv, label=label).returncode == 0
    assert on_a_node.log.read_text() == "stop piimage-blinkt.service\n"


def test_probe_and_clear_work_where_the_header_is(on_a_node):
    assert on_a_node("probe").stdout == "bar {None} held []\n"
    assert on_a_node("clear").stdout == "bar {(0, 0, 0, 0)} held []\n"


def test_a_bar_that_another_program_drives_is_named_and_nothing_is_started(on_a_node):
    done = on_a_node("load", held=True)
    assert done.returncode == 1
    assert "in use by another program" in done.stderr
    assert not on_a_node.request.exists()
    assert "start" not in on_a_node.log.read_text().split()


def test_only_root_drives_the_bar(on_a_node):
    done = on_a_node("load", uid=1000)
    assert done.returncode == 1
    assert "try sudo" in done.stderr
    assert not on_a_node.log.exists()


def test_what_systemd_says_is_passed_on(on_a_node):
    on_a_node.program("systemctl", 'echo "Unit piimage-blinkt.service not found." >&2; exit 5')
    done = on_a_node("load")
    assert done.returncode == 1
    assert done.stderr.endswith("Unit piimage-blinkt.service not found.\n")


@pytest.fixture
def nodes(blinkt, monkeypatch):
    """Runs `--on` among nodes 0 to 2; ssh and sudo are logged, node1 does not answer."""
    path = blinkt.tmp / "nodes"
    path.write_text("node0\nnode1\nnode2\n")
    blinkt.program(
        "ssh", 'echo "ssh $*" >>"$LOG"; case "$*" in *node1*) echo "no route" >&2; exit 255;; esac'
    )
    blinkt.program("sudo", 'echo "sudo $*" >>"$LOG"')
    code = (
        "import sys; from pathlib import Path\n"
        "from piimage.guest.blinkt import command, remote\n"
        f"remote.chosen.__defaults__ = (Path({str(path)!r}),)\n"
        "remote.socket.gethostname = lambda: 'node0'\n"
        "sys.exit(command.main())\n"
    )
    return lambda *argv: blinkt(*argv, code=code), blinkt.log


def test_all_nodes_are_told_and_the_one_that_fails_is_named(nodes):
    run, log = nodes

    done = run("off", "--on", "all")

    assert (done.returncode, done.stderr) == (1, "piimage-blinkt: node1: no route\n")
    ssh = "ssh -o BatchMode=yes -o ConnectTimeout=10 --"
    assert sorted(log.read_text().splitlines()) == [
        f"{ssh} node1 sudo -n piimage-blinkt off",
        f"{ssh} node2 sudo -n piimage-blinkt off",
        "sudo -n piimage-blinkt off",
    ]


def test_one_node_is_told_with_the_options(nodes):
    run, log = nodes
    done = run("locate", "--on", "node2", "--seconds", "2.5", "--brightness", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        log.read_text()
        .strip()
        .endswith("node2 sudo -n piimage-blinkt locate --brightness=20 --seconds=2.5")
    )


@pytest.mark.parametrize("name", ["node9", "-oProxyCommand=x", "", "node0;reboot"])
def test_a_name_that_is_no_node_goes_nowhere(nodes, name):
    run, log = nodes
    done = run("off", f"--on={name}")
    assert done.returncode == 1
    assert "is no node; there are node0, node1, node2, or all" in done.stderr
    assert not log.exists()


def test_nodes_come_in_the_clusters_order(tmp_path):
    path = tmp_path / "nodes"
    path.write_text("b\na\nc\n\n\n")
    assert remote.chosen(["c", "b", "c"], path) == ["b", "c"]
    assert remote.chosen(["all", "a"], path) == ["b", "a", "c"]
