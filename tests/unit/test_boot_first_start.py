"""A card whose first start ends with a restart: played, and its next command line read from the card as it is then."""

from __future__ import annotations

import os

import phony_facts
import pytest
from phony import BOOT_START
from phony_company import Company

from piimage.boot import first_start, joint, qemu, rehearsal, testbed
from piimage.boot.disk import Disk
from piimage.boot.joint import Scenario
from piimage.boot.machine import Machine
from piimage.boot.stage import Options, Stage
from piimage.disk import fat
from piimage.emulator import Accel
from piimage.progress import Quiet
from piimage.state.state import State

SCRIPT = "init=/usr/lib/raspberrypi-sys-mods/firstboot"
QEMU = """\
#!/bin/sh
for word; do case $word in file,id=console,path=*) console=${word##*path=} ;; esac; done
case "$*" in
*init=*) echo first >>%(home)s/turns; echo '%(says)s' >"$console"; exec sleep %(first)s ;;
esac
echo next >>%(home)s/turns
echo "$*" >%(home)s/words
[ "$(grep -c next %(home)s/turns)" -ge %(prompts)d ] || exec sleep 60
echo 'node0 login: ' >"$console"
exec sleep 60
"""
#: Gives the card as its first start leaves it.
QEMU_IMG = """\
#!/bin/sh
[ "$1" != convert ] || { for last; do :; done; cp %(home)s/after.img "$last"; }
"""


@pytest.fixture
def stage(phony, tmp_path, monkeypatch):
    """A phony card with the script on its command line; `after` is the line that its first start leaves."""

    def made(after, *, first=0, says="Growing", timeout=3, prompts=1):
        fat.write_files(
            phony, BOOT_START, {"vmlinuz": b"K", "initrd.img": b"I", "bcm2837-rpi-3-b.dtb": b"D"}
        )
        left = tmp_path / "after.img"
        left.write_bytes(phony.read_bytes())
        fat.write_files(left, BOOT_START, {"cmdline.txt": f"{after}\n".encode()})
        fat.write_files(phony, BOOT_START, {"cmdline.txt": f"root=a quiet {SCRIPT}\n".encode()})
        tools = tmp_path / "bin"
        tools.mkdir()
        words = {"home": tmp_path, "first": first, "says": says, "prompts": prompts}
        for name, text in (("qemu-system-aarch64", QEMU), ("qemu-img", QEMU_IMG)):
            (tools / name).write_text(text % words)
            (tools / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setattr(qemu, "PAUSE", 0.02)
        cluster = phony_facts.cluster()
        return Stage(
            cluster=cluster, node=cluster.nodes[0], disk=Disk(image=phony, build=None), state=State(tmp_path),
            asked=(), progress=Quiet(), options=Options(machine=Machine.RASPI3B, timeout=timeout),
        )  # fmt: skip

    return made


@pytest.mark.parametrize(
    ("cmdline", "needed"),
    [
        (f"console=tty1 {SCRIPT}", True),
        ("init=/usr/lib/raspi-config/init_resize.sh quiet", True),
        ("root=PARTUUID=1-02 rootwait resize", False),
        ("init=/sbin/init firstboot", False),
    ],
)
def test_only_a_vendors_script_restarts(cmdline, needed):
    assert first_start.needed(cmdline) is needed


@pytest.mark.processes
def test_the_next_start_has_the_command_line_that_the_first_one_left(stage, tmp_path):
    played = stage("root=b")
    record = rehearsal.rehearse(played, tmp_path / "dist")

    words = (tmp_path / "words").read_text()
    assert (record.error, record.ok) == (None, True)
    assert (tmp_path / "turns").read_text().split() == ["first", "next"]
    assert record.cmdline.split() == ["root=b", *record.additions]
    assert record.cmdline in words
    assert record.timings["first_start"] < 3
    assert record.console.with_name("console-first.log").read_text() == "Growing\n"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"after": f"root=b {SCRIPT}"}, "would run for ever"),
        ({"after": "root=b", "first": 60}, "did not end by itself within 1 s"),
        ({"after": "root=b", "first": 60, "says": "Kernel panic - not syncing: no init"}, "panic"),
    ],
)
def test_a_first_start_that_goes_wrong_is_told(stage, tmp_path, how, words):
    played = stage(**how, timeout=1)
    record = rehearsal.rehearse(played, tmp_path / "dist")

    assert record.ok is False
    assert words in record.error
    assert (tmp_path / "turns").read_text() == "first\n"


@pytest.mark.processes
def test_a_card_that_falls_silent_after_its_first_start_begins_again(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "_SILENCE", 0.3)
    record = rehearsal.rehearse(stage("root=b", prompts=2), tmp_path / "dist")

    starts = (tmp_path / "turns").read_text().splitlines()
    assert (record.error, starts) == (None, ["first", "next", "first", "next"])
    assert record.cmdline.split() == ["root=b", *record.additions]
    assert "was silent" in record.silent


@pytest.fixture
def play(tmp_path, phony, monkeypatch):
    """Three nodes of a cluster whose cards restart, of which two are played at a time."""
    monkeypatch.setattr(testbed, "AT_ONCE", 2)
    company = Company(tmp_path, phony, monkeypatch, 3)
    company.restarts(SCRIPT)

    def run(**does):
        for name, what in does.items():
            company.does(name, what)
        order = ("node1", "node0", "node2")
        accel = Accel(name="tcg", cpu="max")
        scenario = Scenario(order=order, one_by_one=True)
        return company, joint.rehearse(company.stages, scenario, accel, company.output)

    return run


@pytest.mark.processes
def test_in_a_cluster_they_are_played_together_before_the_wire_is_there(play):
    company, report = play()

    assert list(report.problems()) == []
    turns = company.said("turns")
    assert sorted(turns[:2]) == ["begin node0", "begin node1"]
    assert turns[2].startswith("end ")
    assert len(turns) == 6
    assert company.said("started")[3:] == ["node1", "node0", "node2"]
    for name, record in report.nodes.items():
        argv = company.said(f"{name}.argv")
        assert record.cmdline.split() == ["root=b", *record.additions]
        assert argv[argv.index("-append") + 1] == record.cmdline
        assert "netdev=wire" in " ".join(argv)
        assert record.console.with_name("console-first.log").read_text() == f"booting {name}\n"
    assert set(report.timings) >= {"first_starts", "logins"}


@pytest.mark.processes
def test_one_that_goes_wrong_is_named_and_the_others_play_on(play):
    company, report = play(node0="panic")

    assert [words.partition("\n")[0] for words in report.problems()] == [
        "node0: the kernel panicked: no root"
    ]
    assert company.said("started")[3:] == ["node1", "node2"]
    assert [node.ok for node in report.nodes.values()] == [False, True, True]
