"""QEMU itself: when KVM is believed, what it said last, what of a console reaches our terminal."""

from __future__ import annotations

import os

import pytest

from piimage import emulator
from piimage.emulator import accelerator, clean, last_words, launched


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a QEMU on PATH whose body is shell."""

    def make(body):
        tool = tmp_path / "bin" / emulator.PROGRAM
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")

    return make


def test_kvm_is_believed_only_when_a_machine_starts_with_it(fake):
    fake("exit 1")
    refused = accelerator("aarch64", usable=True)
    assert (refused.name, refused.emulated) == ("tcg", True)
    assert "does not start" in refused.reason
    fake("cat >/dev/null; exit 0")
    assert accelerator("aarch64", usable=True).name == "kvm"
    assert accelerator("aarch64", usable=False).name == "tcg"
    assert "/dev/kvm" in accelerator("aarch64", usable=False).reason


def test_another_architecture_is_emulated_whatever_kvm_says(fake):
    fake("cat >/dev/null; exit 0")
    accel = accelerator("x86_64", usable=True)
    assert accel.name == "tcg"
    assert "x86_64" in accel.reason


def test_a_cpu_is_always_named(fake):
    fake("cat >/dev/null; exit 0")
    assert accelerator("x86_64", usable=True).cpu.startswith("cortex-")
    assert accelerator("aarch64", usable=True).cpu == "host"


def test_what_qemu_says_is_kept_and_its_protocol_left_out(fake, tmp_path):
    fake("""echo '{"QMP": {}}'; echo 'qemu: no room'; read line; echo "$line" """)
    messages = tmp_path / "said"

    with launched([emulator.PROGRAM, "-qmp", "stdio"], messages) as child:
        child.wait(10)

    assert '{"execute": "qmp_capabilities"}' in messages.read_text()
    assert last_words(messages) == "qemu: no room"


def test_qemu_that_ends_at_once_is_the_callers_to_see(fake, tmp_path):
    fake("exit 3")

    with launched([emulator.PROGRAM], tmp_path / "said") as child:
        assert child.wait(10) == 3
    assert last_words(tmp_path / "said") == ""


def test_no_control_sequence_gets_through():
    assert clean("\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07x\x00y\tz\u202e") == "red\nxy\tz"
