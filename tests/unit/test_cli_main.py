"""The command line's edges: every failure one clear message and its exit code, never a trace."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import typer

from piimage import __version__, errors
from piimage.cli import main as cli
from piimage.errors import (
    ConfigError,
    DeviceRefusedError,
    FetchError,
    ImageError,
    InterruptedWriteError,
    MissingToolError,
    PiimageError,
    RehearsalError,
    SomeFailedError,
    StateError,
    ToolFailedError,
    UnansweredError,
    UnsupportedError,
    VerifyError,
    WriteFailedError,
)
from piimage.report import Diagnostic, Severity

CODES = {
    PiimageError: 1,
    ToolFailedError: 1,
    ImageError: 1,
    StateError: 1,
    FetchError: 1,
    ConfigError: 2,
    UnsupportedError: 2,
    MissingToolError: 3,
    VerifyError: 4,
    DeviceRefusedError: 5,
    UnansweredError: 5,
    RehearsalError: 6,
    WriteFailedError: 7,
    SomeFailedError: 8,
    InterruptedWriteError: 130,
}


ENDING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture
def ends(monkeypatch, capsys, tmp_path):
    """Runs `main` on a command that does what it is given; returns exit code and both streams."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def with_command(action):
        app = typer.Typer()
        app.command()(action)
        monkeypatch.setattr(cli, "app", app)
        monkeypatch.setattr(sys, "argv", ["piimage"])
        old = {number: signal.getsignal(number) for number in ENDING}
        try:
            with pytest.raises(SystemExit) as caught:
                cli.main()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        return caught.value.code, *capsys.readouterr()

    return with_command


def raising(error):
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize("kind", CODES)
def test_each_error_has_its_code_and_two_lines(ends, kind):
    code, out, err = ends(raising(kind("what is wrong", hint="what to do")))

    assert (code, out) == (CODES[kind], "")
    assert err == "error: what is wrong\nhint: what to do\n"


def test_every_class_of_error_is_in_this_table():
    direct = {
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, PiimageError)
    }

    assert direct == set(CODES)


def test_without_a_hint(ends):
    assert ends(raising(PiimageError("what is wrong")))[2] == "error: what is wrong\n"


def test_diagnostics_are_shown_in_full(ends):
    found = Diagnostic(severity=Severity.ERROR, message="no such board", hint="pi4?")

    code, _, err = ends(raising(ConfigError("summary", diagnostics=[found])))

    assert code == 2
    assert "no such board" in err
    assert "pi4?" in err


def test_success(ends):
    assert ends(lambda: typer.echo("data"))[:2] == (0, "data\n")


def test_an_unexpected_error_is_a_line_and_a_log(ends, tmp_path):
    code, out, err = ends(raising(ZeroDivisionError("of the test")))

    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert err.startswith("error: unexpected ZeroDivisionError: of the test\nhint: ")
    (log,) = tmp_path.glob("piimage-*.log")
    assert str(log) in err
    assert "ZeroDivisionError" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_an_unexpected_error_where_no_log_can_be_written(ends, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    code, _, err = ends(raising(ZeroDivisionError("of the test")))

    assert code == 1
    assert err.startswith("error: unexpected ZeroDivisionError: of the test\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_that_nobody_caught(ends, number):
    code, _, err = ends(raising(OSError(number, os.strerror(number), "/x/y")))

    assert code == 7
    assert "/x/y" in err
    assert "hint: free some space" in err


def test_another_os_error_is_unexpected(ends):
    code, _, err = ends(raising(PermissionError(errno.EACCES, "Permission denied", "/x/y")))

    assert code == 1
    assert "unexpected PermissionError" in err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort(), EOFError()])
def test_interrupted(ends, error):
    code, out, err = ends(raising(error))

    assert (code, out) == (130, "")
    assert err.strip() == "interrupted; nothing half-written was left"


WAITING = textwrap.dedent("""
    import signal, sys, time, typer
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)  # this shell may ignore them
    from piimage.cli import main
    main.app = typer.Typer()
    @main.app.command()
    def wait() -> None:
        print("ready", flush=True)
        time.sleep(60)
    sys.argv = ["piimage"]
    main.main()
""")


@pytest.mark.parametrize("number", ENDING)
def test_a_real_signal(number):
    child = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        _, told = child.communicate(timeout=20)

    assert child.returncode == 130
    assert told == "interrupted; nothing half-written was left\n"


def test_who_runs_under_nohup_goes_on():
    code = WAITING.replace("SIG_DFL", "SIG_IGN")
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        child.kill()


def test_a_terminal_that_is_closed(tmp_path):
    """What is drawn meanwhile and said afterwards meets errors: neither is a failure of its own."""
    code = WAITING.replace(
        "time.sleep(60)",
        "from piimage.cli.console import progress_for\n"
        "    with progress_for().step('long'):\n        time.sleep(60)",
    )
    master, slave = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY)\n{code}"],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    os.close(slave)
    told = b""
    while b"long" not in told:
        told += os.read(master, 1000)
    os.close(master)

    assert child.wait(20) == 130
    assert list(tmp_path.iterdir()) == [], "a report of an unexpected error"


@pytest.mark.parametrize("said", ["a line", "x" * 100_000])
def test_what_is_printed_onto_a_full_disk_is_a_failure(said):
    code = WAITING.replace("time.sleep(60)", f"print({said!r})")
    with open("/dev/full", "wb") as full:  # noqa: PTH123 -- a device
        done = subprocess.run(
            [sys.executable, "-c", code.replace('print("ready", flush=True)', "pass")],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip

    assert done.returncode == 7
    assert done.stderr.startswith("error: ")
    assert "stdout" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


@pytest.fixture
def piimage(monkeypatch, capsys, tmp_path):
    """Runs the real command line in an empty directory; returns exit code and both streams."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["piimage", *argv])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    return run


def test_version(piimage):
    assert piimage("--version") == (0, f"piimage {__version__}\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        ("build",),
        ("build", "--node", "1", "--all"),
        ("build", "--all", "--format", "foo"),
        ("build", "--no-such-option"),
        ("build", "--node"),
        ("no-such-command",),
        ("base", "no-such-command"),
        ("state", "export"),
    ],
)
def test_usage_errors(piimage, argv, tmp_path):
    code, out, err = piimage(*argv)

    assert (code, out) == (2, "")
    assert "rror" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", ["", "base", "cache", "state", "profile", "overlay"])
def test_what_commands_do_is_said_in_whole_sentences(piimage, group, monkeypatch):
    """A list of commands cuts what does not fit 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    _, out, _ = piimage(*group.split(), "--help")
    listed = [line for line in out.partition("Commands:")[2].splitlines() if line.strip()]

    assert len(listed) > 1
    assert [line for line in listed if line.endswith("...")] == []


@pytest.mark.parametrize("argv", [("--help",), ("-h",), ("build", "-h"), ("state", "import", "-h")])
def test_help(piimage, argv):
    code, out, err = piimage(*argv)

    assert (code, err) == (0, "")
    assert out.strip().startswith("Usage: ")


def test_run_as_a_module():
    argv = [sys.executable, "-m", "piimage", "build"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "name nodes with `--node`" in done.stderr


def test_an_interrupt_while_the_program_is_still_being_imported(tmp_path):
    (tmp_path / "typer.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    argv = [sys.executable, "-m", "piimage", "build"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=30)

    assert (child.returncode, told) == (130, "interrupted\n")


def test_a_reader_that_goes_away(tmp_path):
    """`piimage schema | head -n 1` is no failure worth a trace."""
    script = f"{sys.executable} -m piimage schema | head -c 1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)

    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr


def test_the_module_is_quick_to_import():
    heavy = "guestfs", "pydantic", "cryptography", "rich", "passlib", "yaml", "ruamel.yaml"
    script = f"import sys, piimage.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_table_of_codes_is_the_documented_one():
    assert {code.name: code.value for code in errors.ExitCode} == {
        "OK": 0, "FAILED": 1, "BAD_CONFIG": 2, "MISSING_TOOL": 3, "VERIFY_FAILED": 4, "DEVICE_REFUSED": 5,
        "REHEARSAL_FAILED": 6, "WRITE_ERROR": 7, "PARTIAL": 8, "INTERRUPTED": 130,
    }  # fmt: skip
    assert Path(cli.__file__).name == "main.py"
