"""A running QEMU: started so that it cannot outlive us, watched by its console, switched off by its power button."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from piimage.boot.console import Console
from piimage.emulator import last_words, launched
from piimage.errors import RehearsalError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from piimage.boot.disk import Disk
    from piimage.progress import Task
    from piimage.run import Process

#: Seconds between two looks at the console.
PAUSE = 0.5
#: Seconds between two nudges.
_NUDGING = 5
_SHOWN = 12


class SilentError(RehearsalError):
    """A machine that says nothing more, which may be the emulator's fault as well as the card's."""


class Vm:
    """A started machine. Times are seconds since its start."""

    def __init__(
        self, child: Process, console: Console, messages: Path, nudge: str | None = None
    ) -> None:
        self._child = child
        self.console = console
        self._messages = messages
        self._nudge = nudge
        self._began = self._nudged = time.monotonic()
        self._fresh = False
        self._pressed = 0.0

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._began

    @property
    def running(self) -> bool:
        """Whether QEMU is still there."""
        return self._child.poll() is None

    def await_login(
        self, name: str, *, limit: float, task: Task, silence: float | None = None
    ) -> float:
        """Wait for the login prompt of `name`; returns when it came.

        Raises `RehearsalError` with the last console lines when it did not come within `limit` seconds,
        when it has another name, or as soon as the console or QEMU's end say that it never will; and
        `SilentError` when nothing at all came for `silence` seconds.
        """
        heard = self.seconds
        while (prompt := self.look(name, limit=limit)) is None:
            if self._fresh:
                heard = self.seconds
                task.note(self.console.newest()[:100])
            if silence is not None and self.seconds - heard > silence:
                words = f"the console was silent for {silence:.0f} s before the login prompt"
                raise SilentError(self.failure(words).message)
            self._pause()
        return prompt

    def await_end(self, *, limit: float, task: Task) -> float:
        """Wait until the node switches off or restarts by itself; returns when it did.

        Raises `RehearsalError` when it did not within `limit` seconds, or the console says that it never will.
        """
        while (end := self.look_end(limit=limit)) is None:
            if self._fresh:
                task.note(self.console.newest()[:100])
            self._pause()
        return end

    def look_end(self, *, limit: float) -> float | None:
        """One look: when the node switched off or restarted by itself, or None while it has not.

        Raises what `await_end` raises.
        """
        running = self.running
        self._fresh = self.console.read()
        if not running:
            if self._child.returncode:
                self.check_alive("before the node restarted")
            return self.seconds
        trouble = self.console.trouble()
        if trouble is not None:
            raise self.failure(trouble)
        if self.seconds > limit:
            raise self.failure(f"the node did not end by itself within {limit:.0f} s")
        return None

    def look(self, name: str, *, limit: float) -> float | None:
        """One look at the console: when the login prompt of `name` came, or None while it has not.

        Raises what `await_login` raises.
        """
        self._fresh = self.console.read()
        prompt = self.console.prompt()
        if prompt is not None:
            if prompt != name:
                raise self.failure(f"the login prompt says `{prompt}`, not `{name}`")
            return self.seconds
        trouble = self.console.trouble()
        if trouble is not None:
            raise self.failure(trouble)
        self.check_alive(f"before the login prompt of `{name}` came")
        if self.seconds > limit:
            raise self.failure(f"no login prompt of `{name}` came within {limit:.0f} s")
        return None

    def power_down(self, *, limit: float, task: Task) -> float:
        """Press the power button and wait for QEMU to end; returns how long it took.

        Raises `RehearsalError` when the node is still running after `limit` seconds.
        """
        self.press_power()
        while (took := self.look_off(limit=limit)) is None:
            if self._fresh:
                task.note(self.console.newest()[:100])
            time.sleep(PAUSE)
        return took

    def press_power(self) -> None:
        """Press the power button: an ACPI or GPIO event that the node may obey."""
        self._pressed = self.seconds
        self.command("system_powerdown")

    def plug(self, name: str, *, into: bool) -> None:
        """Plug the cable of the NIC `name` in, or pull it out."""
        self.command("set_link", {"name": name, "up": into})

    def look_off(self, *, limit: float) -> float | None:
        """One look: how long after `press_power` QEMU ended, or None while it has not.

        Raises `RehearsalError` once that took more than `limit` seconds.
        """
        running = self.running
        self._fresh = self.console.read()
        if not running:
            return self.seconds - self._pressed
        if self.seconds - self._pressed > limit:
            raise self.failure(f"the node did not switch off within {limit:.0f} s")
        return None

    def allow_reboot(self) -> None:
        """From now on a reboot starts the node again; until then it ends QEMU, as a boot that fails would."""
        self.command("set-action", {"reboot": "reset"})

    def kill(self) -> None:
        """Cut the power: nothing is flushed, nobody is told."""
        self._child.kill()
        self._child.wait()

    def wait_while_running(self) -> None:
        """Return once the machine has ended by itself."""
        while self.running:
            time.sleep(PAUSE)

    def failure(self, words: str) -> RehearsalError:
        """The error that says `words` and shows how the console ended."""
        self.console.read()
        lines = [line[:160] for line in self.console.last(_SHOWN)]
        shown = "".join(f"\n    {line}" for line in lines) or "\n    (the console stayed empty)"
        return RehearsalError(
            f"{words}{shown}", hint=f"the whole console is in {self.console.path}"
        )

    def _pause(self) -> None:
        """Wait a moment; a machine that wants nudging gets its nudge every few seconds."""
        time.sleep(PAUSE)
        if self._nudge is not None and time.monotonic() - self._nudged > _NUDGING:
            self._nudged = time.monotonic()
            self.command("human-monitor-command", {"command-line": self._nudge})

    def check_alive(self, when: str) -> None:
        """Raise `RehearsalError` with QEMU's last words if it has ended; `when` ends the sentence."""
        if self.running:
            return
        self.console.read()
        status = self._child.returncode
        said = last_words(self._messages) if status else ""
        words = said and f": {said}"
        how = f"with status {status}{words}" if status else "by itself (a reboot or a shutdown)"
        raise self.failure(f"QEMU ended {how} {when}")

    def command(self, name: str, arguments: Mapping[str, str | bool] | None = None) -> None:
        """Send a QMP command; its answer goes to the file of messages."""
        stdin = self._child.stdin
        if stdin is None:
            return
        words = {"execute": name, **({"arguments": arguments} if arguments else {})}
        try:
            # Past the stream's buffer, which would be flushed once more when QEMU is gone.
            os.write(stdin.fileno(), json.dumps(words).encode() + b"\n")
        except BrokenPipeError:
            return


@contextmanager
def start(
    argv: Sequence[str], console: Path, messages: Path, *, nudge: str | None = None
) -> Iterator[Vm]:
    """A machine that ends with the block, and with us however we end; its console goes to the file `console`.

    `nudge` is a line for QEMU's monitor, repeated while a login is awaited; else see `emulator.launched`.
    """
    console.write_bytes(b"")
    with launched(argv, messages) as child:
        vm = Vm(child, Console(console), messages, nudge)
        try:
            yield vm
        finally:
            vm.console.read()
            vm.console.close()


def overlay(disk: Disk, target: Path, size: int) -> None:
    """A qcow2 of `size` bytes over a raw image, which is only read; it holds the patches that make it the node's.

    The patches hold the node's secrets: `target` lies in a directory of ours alone.
    """
    target.unlink(missing_ok=True)
    backing = disk.image.resolve()
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, target, str(size)])
    if not disk.patches:
        return
    with TemporaryDirectory(dir=target.parent) as place:
        words = ["qemu-io", "-t", "unsafe", "-f", "qcow2"]
        for number, patch in enumerate(disk.patches):
            piece = Path(place, str(number))
            piece.write_bytes(patch.data)
            words += ["-c", f"write -q -s {number} {patch.offset} {len(patch.data)}"]
        run([*words, target.resolve()], cwd=Path(place))
