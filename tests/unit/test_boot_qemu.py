"""Watching a machine: a program of ours plays QEMU, writes a console, and ends or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from piimage.boot import qemu
from piimage.boot.console import Console
from piimage.boot.qemu import SilentError
from piimage.emulator import clean
from piimage.errors import MissingToolError, RehearsalError
from piimage.progress import Quiet

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a QEMU on PATH whose body is shell; `$console` is where it writes, QMP is its stdin."""

    def make(body):
        tool = tmp_path / "bin" / "qemu-system-aarch64"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(
            f"#!/bin/sh\nconsole={tmp_path}/console.log\necho $$ >{tmp_path}/pid\n{body}\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(qemu, "PAUSE", 0.02)
        return tmp_path

    return make


@contextmanager
def started(place):
    with qemu.start(["qemu-system-aarch64"], place / "console.log", place / "qemu.log") as vm:
        yield vm


@contextmanager
def task():
    with Quiet().step("x") as step:
        yield step


def login(place, name="node3", limit=10):
    with started(place) as vm, task() as step:
        return vm.await_login(name, limit=limit, task=step)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]


def test_the_login_prompt_is_seen_through_colours(fake):
    place = fake(
        r"printf '\033[0;32mOK\033[0m\r\nDebian 13 node3 ttyAMA0\r\n\r\nnode3 login: ' >$console; sleep 60"
    )

    assert login(place) < 10
    assert gone(int((place / "pid").read_text()))


def test_a_prompt_of_another_name_is_a_failure(fake):
    place = fake("printf '\\nlocalhost login: ' >$console; sleep 60")

    with pytest.raises(RehearsalError, match="says `localhost`, not `node3`"):
        login(place)


@pytest.mark.parametrize(
    ("console", "words"),
    [
        ("Kernel panic - not syncing: VFS: Unable to mount root fs", "the kernel panicked: VFS: Unable to"),
        ("ALERT!  LABEL=RASPIROOT does not exist.  Dropping to a shell!", "LABEL=RASPIROOT does not exist"),
        ("You are in emergency mode. After logging in", "systemd went into emergency mode"),
        ("Cannot open access to console, the root account is locked.", "systemd went into emergency mode"),
        ("\\n(initramfs) ", "waits at a prompt"),
    ],
)  # fmt: skip
def test_hopeless_consoles_end_the_wait_at_once(fake, console, words):
    place = fake(f"printf 'first line\\n{console}\\n' >$console; sleep 60")

    with pytest.raises(RehearsalError, match=words) as caught:
        login(place, limit=50)
    assert "first line" in caught.value.message
    assert str(place / "console.log") in caught.value.hint


def test_a_wait_has_a_limit_and_shows_the_last_lines(fake):
    place = fake("echo 'Starting something slow' >$console; sleep 60")

    with pytest.raises(
        RehearsalError, match=r"no login prompt of `node3` came within 1 s\n .*slow"
    ):
        login(place, limit=1)


def test_a_silent_console_is_told_from_a_slow_one(fake):
    place = fake("for n in 1 2 3 4; do echo $n >>$console; sleep 0.6; done; sleep 60")

    with (
        started(place) as vm,
        task() as step,
        pytest.raises(SilentError, match=r"silent for 2 s before the login prompt\n(.*\n)* +4"),
    ):
        vm.await_login("node3", limit=50, task=step, silence=2)
    assert vm.seconds > 3.5


def test_qemus_own_death_is_told_with_its_words(fake):
    place = fake("echo 'qemu-system-aarch64: -netdev: could not bind' >&2; exit 1")

    with pytest.raises(
        RehearsalError,
        match=r"QEMU ended with status 1: .*could not bind.*\n .*the console stayed empty",
    ):
        login(place)


def test_a_reboot_is_not_a_login(fake):
    place = fake("echo rebooting >$console; exit 0")

    with pytest.raises(RehearsalError, match="ended by itself"):
        login(place)


def test_the_power_button_is_pressed_over_qmp(fake):
    place = fake(
        'while read -r line; do echo "$line"; case $line in *powerdown*) exit 0;; esac; done'
    )

    with started(place) as vm, task() as step:
        assert vm.power_down(limit=10, task=step) < 10
    assert "qmp_capabilities" in (place / "qemu.log").read_text()


def test_a_machine_that_wants_it_is_nudged(fake, monkeypatch):
    monkeypatch.setattr(qemu, "_NUDGING", 0.1)
    place = fake(
        'while read -r line; do echo "$line"; case $line in *"xp 1"*) echo "x login: " >$console;; esac; done'
    )
    files = (place / "console.log", place / "qemu.log")

    with qemu.start(["qemu-system-aarch64"], *files, nudge="xp 1") as vm, task() as step:
        assert vm.await_login("x", limit=10, task=step) < 10
    assert '"human-monitor-command", "arguments": {"command-line": "xp 1"}' in files[1].read_text()


def test_a_node_that_ignores_its_button_is_named(fake):
    place = fake("sleep 60")

    with (
        started(place) as vm,
        task() as step,
        pytest.raises(RehearsalError, match="did not switch off within 1 s"),
    ):
        vm.power_down(limit=1, task=step)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_machine_outlives_us(fake, how):
    place = fake("echo up >$console; exec sleep 300")
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from piimage.boot import qemu
        p = Path({str(place)!r})
        with qemu.start(["qemu-system-aarch64"], p / "console.log", p / "qemu.log"):
            time.sleep(300)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY)
    deadline = time.monotonic() + 20
    while not (place / "console.log").exists() or "up" not in (place / "console.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(how)
    child.wait(20)
    while not gone(int((place / "pid").read_text())):
        assert time.monotonic() < deadline + 5, "the machine is still there"
        time.sleep(0.05)


def test_no_qemu_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("piimage.run._SBIN", ())

    with pytest.raises(MissingToolError) as caught:
        login(tmp_path)
    assert "qemu-system-arm" in caught.value.hint


def test_sequences_cut_in_the_middle_are_put_together(tmp_path):
    path = tmp_path / "console"
    path.write_bytes(b"one \x1b[0;3")
    console = Console(path)
    console.read()
    with path.open("ab") as file:
        file.write(b"2mtwo\x1b[0m\r\nnode3 login: ")
    console.read()

    assert console.text == "one two\nnode3 login: "
    assert console.prompt() == "node3"
    console.close()


def test_no_control_character_reaches_a_terminal():
    assert clean("a\x1b]0;title\x07b\x9bc\x00\rd") == "abc\nd"
