"""A `raspi3b` that falls silent is started once more; a program of ours plays QEMU on a small real card."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Network

import phony_facts
import pytest
from phony import BOOT_START

from piimage.boot import access_point, qemu, rehearsal
from piimage.boot.access_point import AccessPoint
from piimage.boot.disk import Disk
from piimage.boot.machine import Machine
from piimage.boot.stage import Options, Stage
from piimage.cluster import SecretRef, Wifi
from piimage.disk import fat
from piimage.errors import MissingToolError
from piimage.progress import Quiet
from piimage.state.state import State

pytestmark = pytest.mark.processes

QEMU = """\
#!/bin/sh
# Finds the console's file in `file,id=console,path=...` and says what its turn wants.
for word; do case $word in file,id=console,path=*) console=${word##*path=} ;; esac; done
echo start >>%(turns)s
exec 3<&0
cat <&3 >%(turns)s.qmp &
printf '%%s\n' "$@" >%(turns)s.words
[ "$(wc -l <%(turns)s)" -gt %(silent)d ] || { echo 'Starting a' >$console; exec sleep 60; }
echo 'node0 login: ' >$console
exec sleep 60
"""


@pytest.fixture
def perform(phony, tmp_path, monkeypatch):
    """Rehearse node0 with a QEMU that stays silent for its first `silent` starts."""

    def play(machine, silent, radio=None, **options):
        files = {"vmlinuz": b"K", "initrd.img": b"I", "bcm2837-rpi-3-b.dtb": b"D"}
        fat.write_files(phony, BOOT_START, files)
        tools = tmp_path / "bin"
        tools.mkdir()
        turns = tmp_path / "turns"
        for name, text in (
            ("qemu-system-aarch64", QEMU % {"turns": turns, "silent": silent}),
            ("qemu-img", "#!/bin/sh\nexit 0\n"),
        ):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setattr(qemu, "PAUSE", 0.02)
        monkeypatch.setattr(rehearsal, "_SILENCE", 1)
        cluster = phony_facts.cluster()
        stage = Stage(
            cluster=cluster, node=cluster.nodes[0], disk=Disk(image=phony, build=None),
            state=State(tmp_path), asked=(), progress=Quiet(), options=Options(machine=machine, timeout=3, **options),
            radio=radio,
        )  # fmt: skip
        record = rehearsal.rehearse(stage, tmp_path / "dist")
        return record, len(turns.read_text().split())

    return play


def test_it_is_started_once_more_and_the_report_says_so(perform):
    record, starts = perform(Machine.RASPI3B, silent=1)

    assert (record.ok, starts) == (True, 2)
    assert record.silent == "the console was silent for 1 s before the login prompt"
    assert record.to_json()["silent"] == record.silent
    assert record.console.with_name("console-silent.log").read_text() == "Starting a\n"
    assert "login:" in record.console.read_text()


def test_it_is_not_started_for_ever(perform):
    record, starts = perform(Machine.RASPI3B, silent=9)

    assert (record.ok, starts) == (False, 2)
    assert "silent for 1 s" in record.error


def test_another_machine_may_be_slow_and_gets_no_second_start(perform):
    record, starts = perform(Machine.VIRT, silent=9)

    assert (record.ok, starts, record.silent) == (False, 1, None)
    assert "no login prompt of `node0` came within 3 s" in record.error


def test_missing_tools_are_told_before_a_boot_of_minutes(perform, tmp_path, monkeypatch):
    monkeypatch.setattr("piimage.run.available", lambda name: name != "ssh")

    with pytest.raises(MissingToolError, match="`ssh` is not installed"):
        perform(Machine.VIRT, silent=0)

    assert not (tmp_path / "turns").exists()
    assert not (tmp_path / "dist").exists()


def test_the_wires_cable_is_out_before_the_prompt(perform, tmp_path):
    record, _ = perform(Machine.VIRT, silent=9, unplugged=True)

    said = [json.loads(line) for line in (tmp_path / "turns.qmp").read_text().splitlines()]
    pulled = {"execute": "set_link", "arguments": {"name": "wire", "up": False}}
    assert [words for words in said if words["execute"] == "set_link"] == [pulled]
    assert record.to_json()["unplugged"] is True


def test_a_radio_is_declared_and_attached(perform, tmp_path, monkeypatch):
    wifi = Wifi(ssid="lab", country="IT", psk=SecretRef("hash", "ab" * 32))
    kit, subnet = tmp_path / "kit.img", IPv4Network("10.1.10.0/24")
    radio = access_point.radio(kit, AccessPoint.ABSENT, wifi, "ab" * 32, subnet)
    record, _ = perform(Machine.VIRT, silent=9, radio=radio)

    assert record.additions[-1] == "systemd.wants=a.service"
    assert record.cmdline.endswith(" systemd.wants=a.service")
    assert record.to_json()["access_point"] == "absent"
    words = (tmp_path / "turns.words").read_text()
    assert f"readonly=on,file={tmp_path / 'kit.img'}\n" in words
    assert "name=opt/io.systemd.credentials/systemd.extra-unit.a.service,file=" in words
