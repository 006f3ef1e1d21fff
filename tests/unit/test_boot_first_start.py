"""A card whose first start ends with a restart: played, and its next command line read from the card as it is then."""

from __future__ import annotations

import os
from contextlib import ExitStack

import phony_facts
import pytest
from phony import BOOT_START

from piimage.boot import first_start, qemu, rehearsal
from piimage.boot.actor import company
from piimage.boot.disk import Disk
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
echo start >>%(home)s/turns
case "$*" in
*init=*) echo '%(says)s' >"$console"; exec sleep %(first)s ;;
esac
echo "$*" >%(home)s/words
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

    def made(after, *, first=0, says="Growing", timeout=3):
        fat.write_files(
            phony, BOOT_START, {"vmlinuz": b"K", "initrd.img": b"I", "bcm2837-rpi-3-b.dtb": b"D"}
        )
        left = tmp_path / "after.img"
        left.write_bytes(phony.read_bytes())
        fat.write_files(left, BOOT_START, {"cmdline.txt": f"{after}\n".encode()})
        fat.write_files(phony, BOOT_START, {"cmdline.txt": f"root=a quiet {SCRIPT}\n".encode()})
        tools = tmp_path / "bin"
        tools.mkdir()
        words = {"home": tmp_path, "first": first, "says": says}
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
    assert len((tmp_path / "turns").read_text().split()) == 2
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
    assert (tmp_path / "turns").read_text() == "start\n"


@pytest.mark.processes
def test_in_a_cluster_it_is_played_before_the_wire_is_there(stage, tmp_path):
    accel = Accel(name="tcg", cpu="max")
    (tmp_path / "ca.pub").write_text("ssh-ed25519 AAAA\n")
    with ExitStack() as scene:
        played = stage("root=b")
        (actor,) = company([played], accel, tmp_path / "dist", tmp_path, scene).values()
        start = actor.start(accel, played.options.memory)

    assert (tmp_path / "turns").read_text() == "start\n"
    assert actor.record.cmdline.split() == ["root=b", *actor.record.additions]
    assert start.argv[start.argv.index("-append") + 1] == actor.record.cmdline
    assert "netdev=wire" in " ".join(start.argv)
    assert actor.record.timings["first_start"] < 3
