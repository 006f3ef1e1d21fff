"""Processes: what is missing, how they ended, what they are given."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from piimage.errors import MissingToolError, ToolFailedError
from piimage.run import PACKAGES, available, failure, find, process, require, run


@pytest.fixture
def bin_(tmp_path, monkeypatch):
    """A directory first on PATH, and a way to put programs there."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def program(name, script):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    return program


def test_a_missing_tool_and_its_package(monkeypatch):
    monkeypatch.setattr("piimage.run._SBIN", ())
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(MissingToolError, match="`mcopy` is not installed") as caught:
        run(["mcopy", "x"])

    assert caught.value.hint == "on Debian: `apt-get install mtools`"
    assert not available("mcopy")


def test_an_unknown_missing_tool():
    with pytest.raises(MissingToolError) as caught:
        find("no-such-tool-of-ours")

    assert "no-such-tool-of-ours" in caught.value.hint


@pytest.mark.parametrize("tool", sorted(PACKAGES))
def test_every_hint_names_a_package(tool):
    assert PACKAGES[tool].replace("-", "").replace(".", "").isalnum()


def test_tools_in_sbin_are_found_without_it_on_path(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    assert find("mke2fs").endswith("/sbin/mke2fs")


def test_both_streams_and_the_status(bin_):
    bin_("tool", 'printf out; printf "\\377err" >&2; exit 3')

    result = run(["tool"], check=False)

    assert (result.stdout, result.stderr, result.returncode) == (b"out", b"\xfferr", 3)
    assert result.text == "out"


def test_a_failure_has_its_last_words(bin_):
    bin_("tool", 'for n in 1 2 3 4 5 6 7 8; do echo "line $n" >&2; done; exit 9')

    with pytest.raises(ToolFailedError) as caught:
        run(["tool"])

    lines = caught.value.message.splitlines()
    assert lines[0] == "`tool` failed with exit status 9"
    assert lines[1:] == [f"    line {n}" for n in range(3, 9)]


def test_a_failure_that_spoke_on_stdout(bin_):
    bin_("tool", "echo why; exit 1")

    with pytest.raises(ToolFailedError, match="why"):
        run(["tool"])


@pytest.mark.parametrize(
    ("name", "words"), [("KILL", "SIGKILL"), ("34", "SIGRTMIN"), ("40", "signal 40")]
)
def test_a_signal(bin_, name, words):
    bin_("tool", f"kill -{name} $$; sleep 5")

    with pytest.raises(ToolFailedError, match=f"`tool` was killed by {words}"):
        run(["tool"])


def test_what_a_wrapper_says_when_it_finds_nothing(bin_):
    bin_("tool", "exec no-such-tool-of-ours")

    with pytest.raises(ToolFailedError, match="could not start a program it needs"):
        run(["tool"])


def test_a_timeout_ends_the_program(bin_, tmp_path):
    bin_("tool", f"echo $$ >{tmp_path}/pid; exec sleep 60")
    began = time.monotonic()

    with pytest.raises(ToolFailedError, match=r"`tool` did not end within 0\.5 s"):
        run(["tool"], timeout=0.5)

    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_environment(bin_, monkeypatch):
    bin_("tool", "env")
    monkeypatch.setenv("LC_MESSAGES", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.setenv("KEPT", "yes")

    found = dict(line.split("=", 1) for line in run(["tool"], env={"OURS": "1"}).text.splitlines())

    assert found["LC_ALL"] == found["LANG"] == "C.UTF-8"
    assert not {"LC_MESSAGES", "LANGUAGE"} & set(found)
    assert (found["KEPT"], found["OURS"]) == ("yes", "1")
    assert "/usr/sbin" in found["PATH"].split(":")


def test_no_shell_and_nothing_on_stdin(bin_, tmp_path):
    bin_("tool", 'printf "%s\\n" "$@"; cat')

    result = run(["tool", "a b", "$(touch x)", "*", tmp_path])

    assert result.text.splitlines() == ["a b", "$(touch x)", "*", str(tmp_path)]


def test_stdin_of_bytes_and_of_a_file(bin_, tmp_path):
    bin_("tool", "cat")
    (tmp_path / "in").write_bytes(b"from a file")

    assert run(["tool"], stdin=b"x" * 300_000).stdout == b"x" * 300_000
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        assert run(["tool"], stdin=source, stdout=sink).stdout == b""
    assert (tmp_path / "out").read_bytes() == b"from a file"


def test_a_program_that_does_not_read_its_stdin(bin_):
    bin_("tool", "exit 0")

    assert run(["tool"], stdin=b"x" * 3_000_000).returncode == 0


def test_an_interrupt_ends_the_program(bin_, tmp_path):
    bin_("tool", f"echo $$ >{tmp_path}/pid; exec sleep 60")

    def interrupt(*_):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(["tool"])
    finally:
        signal.signal(signal.SIGALRM, old)

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_process_does_not_outlive_its_block(bin_):
    bin_("tool", "echo ready; exec sleep 60")

    with process(["tool"]) as child:
        assert child.stdout.readline() == b"ready\n"

    assert child.returncode == -signal.SIGTERM
    assert child.stdout.closed


def test_a_process_that_ends_by_itself(bin_):
    bin_("tool", "echo out; echo err >&2; exit 4")

    with process(["tool"]) as child:
        assert child.stdout.read() == b"out\nerr\n"
        assert child.wait() == 4


def test_a_process_that_is_missing():
    with pytest.raises(MissingToolError), process(["no-such-tool-of-ours"]):
        pass


def test_a_result_is_told_without_running():
    done = subprocess.run(["sh", "-c", "exit 5"], check=False)

    assert (
        "exit status 5"
        in failure(run(["sh", "-c", f"exit {done.returncode}"], check=False)).message
    )


def test_all_that_is_missing_is_said_at_once(bin_):
    bin_("here", "exit 0")

    require("here", "sh")
    with pytest.raises(MissingToolError) as caught:
        require("here", "mcopy-of-nobody", "no-such-tool-of-ours")

    assert caught.value.message == "`mcopy-of-nobody`, `no-such-tool-of-ours` are not installed"
    assert caught.value.hint == "on Debian: `apt-get install mcopy-of-nobody no-such-tool-of-ours`"
