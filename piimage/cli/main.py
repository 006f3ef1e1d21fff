"""The command line: register the commands, run one, turn every failure into one clear message and an exit code."""

from __future__ import annotations

import errno
import functools
import logging
import math
import os
import signal
import stat
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from piimage import __version__
from piimage.cli import (
    base,
    boot,
    build,
    cache,
    card,
    doctor,
    export,
    flash,
    init,
    lock,
    matrix,
    overlay,
    plan,
    profile,
    schema,
    show,
    ssh,
    state,
    validate,
    verify,
)
from piimage.cli.examples import further
from piimage.errors import ConfigError, ExitCode, PiimageError, WriteFailedError

#: What full disks, quotas and file-size limits answer.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Seconds.
_SAME = 1.0

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

app = typer.Typer(
    name="piimage",
    help="One cluster.yaml in, SD cards for a Raspberry Pi cluster out.",
    epilog="Example: piimage validate && piimage build --node 3 && piimage boot --node 3",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(
    short_help="Write a commented cluster.yaml from a few answers.", epilog=further("init")
)(init.init)
app.command(short_help="Check a cluster.yaml, and show every mistake at once.")(validate.validate)
app.command(short_help="Show every field of a node as it was resolved.")(show.show)
app.command(
    short_help="Show what a build would change, as a diff; nothing is made.", epilog=further("plan")
)(plan.plan)
app.command(epilog=further("build"))(build.build)
app.command(
    short_help="Prove that an image or a card holds what was promised.", epilog=further("verify")
)(verify.verify)
app.command(short_help="Tell which node a card holds, and from which build.")(card.card)
app.command(short_help="Settle which packages the images get, by version and hash.")(lock.lock)
app.command(short_help="Write a node to a card, and read all of it back.", epilog=further("flash"))(
    flash.flash
)
app.command(short_help="Start images in QEMU and check them from inside.", epilog=further("boot"))(
    boot.boot
)
app.command(
    short_help="Log in to a node while `piimage boot` runs it.",
    context_settings={"allow_interspersed_args": False},
)(ssh.ssh)
app.command(short_help="Say what this machine can do, and what is missing.")(doctor.doctor)
app.command(
    short_help="Write files for other tools, or a picture of the cluster.", epilog=further("export")
)(export.export)
app.command(short_help="Print the variants of a cluster as jobs for CI.")(matrix.matrix)
app.add_typer(base.app, name="base")
app.add_typer(cache.app, name="cache")
app.add_typer(state.app, name="state")
app.add_typer(profile.app, name="profile")
app.add_typer(overlay.app, name="overlay")
app.command()(schema.schema)


def _version(wanted: bool) -> None:  # noqa: FBT001 -- typer's callback shape
    if wanted:
        typer.echo(f"piimage {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log every command that is run, on stderr.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One cluster.yaml in, SD cards for a Raspberry Pi cluster out."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(message)s" if verbose else "%(levelname)s: %(message)s",
        stream=sys.stderr,
    )


def main() -> None:
    """Run the command line; the only place that catches `PiimageError` and ends the process."""
    interrupt = _Interrupt()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP is under nohup
            signal.signal(number, interrupt)
    try:
        status = _flushed(_run())
    except KeyboardInterrupt:  # a second one, while the first was seen to
        status = ExitCode.INTERRUPTED
    sys.exit(status)


def _run() -> int:
    """Run the command; its exit code."""
    try:
        status = _command(app)(standalone_mode=False)
    except PiimageError as error:
        _show(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        status = ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.FAILED
    except OSError as error:
        if error.errno not in _FULL:
            return _unexpected(error)
        where = "on the disk" if error.filename else "on the disk, or where stdout goes"
        _show(WriteFailedError(f"no room left {where}: {error}", hint="free some space"))
        return ExitCode.WRITE_ERROR
    except Exception as error:  # noqa: BLE001 -- the last resort: a report instead of a trace
        return _unexpected(error)
    if status == ExitCode.INTERRUPTED:  # typer's own way to tell of Ctrl-C
        print("interrupted; nothing half-written was left", file=sys.stderr)  # noqa: T201 -- cli prints
    return status if isinstance(status, int) else 0


def _flushed(status: int) -> int:
    """The exit code, once all that was printed has gone to stdout, or it is known that it cannot."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is left would be tried again at the very end, with a trace and a code of Python's.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if status == ExitCode.OK and isinstance(error, BrokenPipeError):
            return ExitCode.FAILED
        if status == ExitCode.OK:
            words = (error.strerror or str(error)).lower()
            _show(WriteFailedError(f"cannot write to stdout: {words}"))
            return ExitCode.WRITE_ERROR
    return status


@functools.cache
def _command(whole: typer.Typer) -> Callable[..., object]:
    """All commands, made out of their functions once: that takes longer than most take to run."""
    return get_command(whole)


class _Interrupt:
    """SIGTERM, and SIGHUP of a terminal that was closed, clean up as Ctrl-C does.

    What follows within a second is the same wish: kernel and shell both send SIGHUP, and the second one would break
    off what the first one began.
    """

    def __init__(self) -> None:
        self._heard = -math.inf

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        now = time.monotonic()
        if now - self._heard > _SAME:
            self._heard = now
            raise KeyboardInterrupt


def _leave_terminal() -> None:
    """What is said goes nowhere from now on, if it went to the terminal that is gone: that answers with errors only."""
    for fd in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd):
                os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), fd)


def _show(error: PiimageError) -> None:
    """Diagnostics in full if it has them, else one line for what is wrong and one for what to do."""
    if isinstance(error, ConfigError) and error.diagnostics:
        from piimage.cli.console import colour_wanted  # noqa: PLC0415 -- start-up time
        from piimage.report import render_text  # noqa: PLC0415 -- start-up time

        print(render_text(error.diagnostics, colour=colour_wanted()), file=sys.stderr)  # noqa: T201 -- cli prints
        return
    from piimage.cli.lines import visible  # noqa: PLC0415 -- start-up time

    print(f"error: {visible(error.message, lines=True)}", file=sys.stderr)  # noqa: T201 -- cli prints
    if error.hint:
        print(f"hint: {visible(error.hint, lines=True)}", file=sys.stderr)  # noqa: T201 -- cli prints


def _unexpected(error: Exception) -> int:
    """A mistake of ours: one line, and a file with the trace to send us."""
    usage = getattr(error, "format_message", None)
    if usage is not None:  # typer's own usage errors
        show = getattr(error, "show", None)
        if show is not None:
            show(file=sys.stderr)
        return int(getattr(error, "exit_code", ExitCode.BAD_CONFIG))
    try:
        handle, name = tempfile.mkstemp(prefix="piimage-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
            traceback.print_exception(error, file=log)
    except OSError:
        name = "what you did and what it said"
    print(  # noqa: T201 -- cli prints
        f"error: unexpected {type(error).__name__}: {error}\n"
        f"hint: this is a bug of piimage {__version__}; please report it with {name}",
        file=sys.stderr,
    )
    return ExitCode.FAILED
