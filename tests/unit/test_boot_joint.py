"""Several nodes together: order, failures by name, the smoke test, a power cut, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from phony_company import CLUSTER, Company, smoke_report
from test_boot_qemu import gone

from piimage.boot import joint, outage
from piimage.boot.joint import Scenario
from piimage.components.contribution import Check
from piimage.emulator import Accel
from piimage.errors import PiimageError, RehearsalError

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]
TCG = Accel("tcg", "cortex-a72")


@pytest.fixture
def company(tmp_path, phony, monkeypatch):
    monkeypatch.setattr(outage, "NOTICED", 0.1)
    return Company(tmp_path, phony, monkeypatch, 3)


@pytest.fixture
def play(company):
    def run(hold=None, **scenario):
        order = scenario.pop("order", tuple(company.names))
        return joint.rehearse(
            company.stages, Scenario(order=order, **scenario), TCG, company.output, hold=hold
        )

    return run


def problems(report):
    return list(report.problems())


def test_all_nodes_come_up_and_keep_their_promises(company, play):
    report = play()

    assert problems(report) == []
    assert list(report.nodes) == company.names
    place = company.output / "rehearsal"
    whole = json.loads((place / "cluster.json").read_bytes())
    assert (whole["ok"], whole["order"], whole["one_by_one"]) == (True, company.names, False)
    assert whole["additions"] == [
        (
            "on each card's command line: console=ttyAMA0 net.ifnames=0 systemd.default_device_timeout_sec=600"
            " mitigations=off kpti=off nokaslr init_on_alloc=0"
        )
    ]
    for name in company.names:
        own = json.loads((place / name / "report.json").read_bytes())
        reached = {f["name"] for f in own["findings"] if f["name"].startswith("plan: reaches")}
        assert reached == {f"plan: reaches {other}" for other in company.names if other != name}
        assert (own["ok"], set(own["timings"])) == (True, {"login", "facts", "power_off"})
        assert not (place / name / "scratch").exists()
        assert (place / name / "ssh_config").stat().st_size


@pytest.mark.parametrize("count", [3, 5])
def test_what_needs_the_whole_cluster_is_asked_when_it_is_there(
    tmp_path, phony, monkeypatch, count
):
    company = Company(tmp_path, phony, monkeypatch, count)
    check = Check(name="a share", argv=("true",), needs_cluster=True)
    stages = [replace(stage, asked=(check,)) for stage in company.stages]

    report = joint.rehearse(stages, Scenario(order=tuple(company.names)), TCG, company.output)

    assert problems(report) == []
    for name, record in report.nodes.items():
        asked = "'a share'" in (company.play / f"{name}.asked").read_text()
        assert asked is (count == len(CLUSTER.nodes))
        (finding,) = [f for f in record.findings if f.name == "plan: a share"]
        assert finding.ok is None


def sockets(play):
    """The directory of the sockets that a machine was told to use."""
    argv = (play / "node1.argv").read_text()
    return Path(re.search(r"local\.path=([^,]*)/1,", argv)[1])


def test_nothing_is_left_behind(company, play):
    def hold(bed, names):
        assert (sockets(company.play) / "switch").exists()

    assert problems(play(hold=hold)) == []

    assert all(gone(pid) for pid in company.pids())
    assert len(company.pids()) == 4
    assert not sockets(company.play).exists()


def test_nodes_have_the_processors_that_mpi_wants_on_a_board(company, play):
    """The sample has four ranks per node, and Open MPI gives each a core of its own or none."""
    assert CLUSTER.mpi.slots == 4

    play()

    for name in company.names:
        argv = company.said(f"{name}.argv")
        assert argv[argv.index("-smp") + 1] == "4"


def test_the_head_is_switched_off_last(company, play):
    play()

    assert company.said("off")[-1] == "node0"
    assert sorted(company.said("off")) == company.names


def test_an_order_is_kept_and_each_waits_for_the_one_before(company, play):
    report = play(order=("node2", "node0", "node1"), one_by_one=True)

    assert problems(report) == []
    assert company.said("started") == ["node2", "node0", "node1"]
    assert report.order == ("node2", "node0", "node1")
    assert list(report.nodes) == company.names, "the report keeps the cluster's order"


def test_a_node_that_fails_does_not_hold_up_the_next(company, play):
    company.does("node2", "panic")

    report = play(order=("node2", "node0", "node1"), one_by_one=True)

    assert company.said("started") == ["node2", "node0", "node1"]
    assert [words.partition("\n")[0] for words in problems(report)] == [
        "node2: the kernel panicked: no root"
    ]


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("panic", "node1: the kernel panicked: no root"),
        (
            "leave",
            "node1: QEMU ended by itself (a reboot or a shutdown) while the nodes were asked",
        ),
    ],
)
def test_a_node_that_does_not_come_is_named_and_the_others_are_asked(company, play, does, words):
    company.does("node1", does)

    report = play(smoke=True)

    found = problems(report)
    assert found[0].startswith(words)
    assert "smoke test: expected a report from all nodes; found not run" in found[-1]
    assert "node1" in found[-1]
    assert [node.ok for node in report.nodes.values()] == [True, False, True]
    with pytest.raises(RehearsalError, match="found 2 problems") as caught:
        report.check(company.output)
    assert "\n    node1: " in caught.value.message


def test_a_wait_has_a_limit(company, play):
    company.does("node1", "hang")
    short = replace(company.options, timeout=1.0)
    company.stages[:] = [replace(stage, options=short) for stage in company.stages]

    report = play()

    assert problems(report)[0].startswith("node1: no login prompt of `node1` came within 1 s")


def test_the_smoke_test_runs_on_the_head_after_the_stand_in(company, play):
    report = play(smoke=True)

    assert problems(report) == []
    assert report.smoke["mpi"]["ranks"] == 12
    assert company.said("node0.commands")[-1] == "piimage-smoke --json --limit 360 --wait 360"
    assert not any("piimage-smoke" in command for command in company.said("node1.commands"))
    for name in company.names:
        assert company.said(f"{name}.commands")[0] == "python3 -", (
            "asked before anything is touched"
        )
        assert "ip route replace default via 10.0.2.2" in "\n".join(company.said(f"{name}.script"))
    assert "as a stand-in for Wi-Fi" in report.to_json()["additions"][-1]
    place = company.output / "rehearsal"
    assert json.loads((place / "smoke.json").read_bytes()) == report.smoke
    assert "<svg" in (place / "smoke.html").read_text()


def test_a_failed_smoke_test_is_told_in_its_words(company, play):
    company.smoke(smoke_report(company.nodes, ok=False))

    report = play(smoke=True)

    assert problems(report) == ["smoke test: node1: uid of federico is 1002, expected 1000 <&>"]
    assert report.to_json()["ok"] is False
    page = (company.output / "rehearsal" / "smoke.html").read_text()
    assert "expected 1000 &lt;&amp;&gt;" in page


@pytest.mark.parametrize(
    ("report", "status", "words"),
    [
        ({"version": 1, "ok": True}, 127, "`node0` has no `piimage-smoke`"),
        ({"version": 1, "ok": True}, 2, "the smoke test could not run"),
        ({"version": 1, "ok": True}, 1, "says ok: True and ends with status 1"),
        ({"version": 9, "ok": True}, 0, "version 9 of its report, expected 1"),
        ([], 0, "not an object"),
    ],
)
def test_a_smoke_test_without_a_report_is_a_failure(company, play, report, status, words):
    company.smoke({"ok": True}, status)
    (company.play / "smoke.json").write_text(json.dumps(report))

    assert words in problems(play(smoke=True))[0]


def test_without_sudo_the_smoke_test_does_without_the_stand_in(company, play):
    (company.play / "node2.refuses").touch()

    report = play(smoke=True)

    assert problems(report) == []
    (unasked,) = [f for f in report.findings if f.ok is None]
    assert (unasked.name, "a password is required" in unasked.found) == (
        "Wi-Fi stand-in on node2", True,
    )  # fmt: skip
    assert report.additions[-1].endswith("metric 600): node0, node1")


def test_the_head_dies_with_its_share_in_use(company, play):
    report = play(kill="node0")

    assert problems(report) == []
    assert report.killed == "node0"
    assert sorted(company.said("off")) == ["node1", "node2"]
    for name in ("node1", "node2"):
        found = {f.name: f for f in report.nodes[name].findings}
        assert found["share /srv/cluster"].found == "in use, written to"
        assert found["power off"].ok
        assert company.said(f"{name}.commands")[-1] == "sh -s -- /srv/cluster"
    assert "power off" not in {f.name for f in report.nodes["node0"].findings}


def test_a_worker_that_hangs_on_the_dead_share_is_named(company, play, monkeypatch):
    company.does("node2", "stubborn")
    monkeypatch.setattr("piimage.boot.steps._POWER_OFF", 0.2)

    (words,) = problems(play(kill="node0"))

    assert words.startswith("node2: power off: expected off within 1 s of the power button; found")
    assert "did not switch off" in words


def test_who_is_not_up_cannot_be_killed(company, play):
    company.does("node1", "panic")

    assert "power cut: expected node1 on" in problems(play(kill="node1"))[-1]


def test_a_gateway_that_does_not_start_says_why(company, play):
    (company.play / "gateway.fails").touch()

    (words,) = problems(play())

    assert words.startswith(
        "the gateway of the rehearsal's network ended: qemu-system-aarch64: could"
    )


def test_a_network_that_dies_ends_the_rehearsal(company, play):
    company.does("node1", "hang")

    def cut():
        while not (company.play / "node0.up").exists():
            time.sleep(0.02)
        os.kill(int((company.play / "gateway.pid").read_text()), signal.SIGKILL)

    thread = Thread(target=cut)
    thread.start()
    report = play()
    thread.join()

    assert "the gateway of the rehearsal's network ended" in problems(report)[0]
    assert all(gone(pid) for pid in company.pids())


def test_it_is_held_until_its_nodes_are_off_and_a_reboot_is_none(company, play):
    lost = []

    def hold(bed, names):
        assert names == company.names
        pressing = Thread(target=press, args=(bed, names))
        pressing.start()
        bed.hold(lost.append)
        pressing.join()

    def press(bed, names):
        while not all("set-action" in "".join(company.said(f"{name}.qmp")) for name in names):
            time.sleep(0.02)
        for name in names:
            bed.vms[name].press_power()

    report = play(hold=hold)

    assert sorted(lost) == company.names
    assert problems(report) == []


def test_one_place_one_rehearsal(company, play):
    def hold(bed, names):
        with pytest.raises(PiimageError, match="another rehearsal is using"):
            play()

    assert problems(play(hold=hold)) == []


SCRIPT = """
    import sys
    sys.path[:0] = [{tests!r}, {parent!r}]
    from pathlib import Path
    import pytest
    from phony import make_phony
    from phony_company import Company
    from piimage.boot import joint
    from piimage.boot.joint import Scenario
    from piimage.emulator import Accel
    place = Path({place!r})
    phony = make_phony(place / "phony.img")
    company = Company(place, phony, pytest.MonkeyPatch(), 3)
    {before}
    joint.rehearse(company.stages, Scenario(order=tuple(company.names)), Accel("tcg", "x"), company.output)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("when", ["booting", "asking"])
def test_however_it_is_ended_nothing_runs_on(tmp_path, how, when):
    waits = (
        '(company.play / "node1.slow").touch()'
        if when == "asking"
        else 'company.does("node1", "hang")'
    )
    text = textwrap.dedent(SCRIPT).format(
        tests=str(REPOSITORY / "tests/unit"), parent=str(REPOSITORY / "tests"), place=str(tmp_path), before=waits
    )  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    child = subprocess.Popen(
        [sys.executable, "-c", text], cwd=REPOSITORY, env=env, stderr=subprocess.DEVNULL
    )
    play, deadline = tmp_path / "play", time.monotonic() + 40
    while not ready(play, when):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(how)
    child.wait(20)
    pids = [int(path.read_text()) for path in play.glob("*.pid")]
    assert len(pids) == 4
    while not all(map(gone, pids)) or sockets(play).exists():
        assert time.monotonic() < deadline + 5, "something is still there"
        time.sleep(0.05)


def ready(play, when):
    """Whether all machines were started, and one of them is what we want to interrupt."""
    if len(list(play.glob("*.pid"))) < 4:
        return False
    commands = play / "node1.commands"
    return when == "booting" or (commands.exists() and "python3 -" in commands.read_text())


def test_the_sample_has_a_share_for_these_tests():
    assert [(share.path, share.server) for share in CLUSTER.shares] == [("/srv/cluster", "node0")]
