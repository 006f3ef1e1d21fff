"""The private Ethernet while it runs: a switch and the host's gateway, and nothing of them left afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.boot import switch, wiring
from piimage.emulator import last_words, tethered
from piimage.errors import RehearsalError
from piimage.run import PIPE, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import IO

    from piimage.boot.wiring import Wire
    from piimage.run import Process

#: Seconds in which switch and gateway must be there.
_START = 30
_PAUSE = 0.05
#: The address of a unix socket has 108 bytes (unix(7)); our names below take 30.
_LONGEST = 60
_SHORT = "/tmp"  # noqa: S108 -- mkdtemp makes a private directory in it
#: Waits until our end of its standard input is closed, by us or by our death, then removes the directory.
_JANITOR = 'trap "" INT TERM HUP; cat >/dev/null; rm -rf -- "$1"'


class Fabric:
    """A running switch and gateway."""

    def __init__(self, children: Mapping[str, tuple[Process, Path]]) -> None:
        self._children = children

    def check(self) -> None:
        """Raise `RehearsalError` if a part of it has ended: then no node can be reached any more."""
        for name, (child, log) in self._children.items():
            if child.poll() is not None:
                said = last_words(log)
                raise RehearsalError(
                    f"the {name} of the rehearsal's network ended{said and f': {said}'}",
                    hint=f"what it said is in {log}",
                )

    def cut(self) -> None:
        """End it at once, and with it every connection from the host to a node."""
        for child, _ in self._children.values():
            child.kill()
            child.wait()


@contextmanager
def sockets() -> Iterator[Path]:
    """A private directory with a name short enough for unix sockets, gone when the block ends or we are killed."""
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _LONGEST:
        parent = _SHORT
    directory = Path(tempfile.mkdtemp(prefix="piimage-", dir=parent))
    try:
        words = ["sh", "-c", _JANITOR, "sh", str(directory)]
        with process(words, stdin=PIPE, new_session=True) as janitor:
            try:
                yield directory
            finally:
                if janitor.stdin is not None:
                    janitor.stdin.close()
                janitor.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def fabric(wires: Mapping[str, Wire], directory: Path, logs: Path) -> Iterator[Fabric]:
    """A switch with its sockets in `directory`, and the gateway with the forwards of all nodes.

    Raises `RehearsalError` when one of them does not start, `MissingToolError` when there is no QEMU. Start it
    from the main thread (`emulator.tethered`).
    """
    with (
        (logs / "switch.log").open("wb") as switch_log,
        (logs / "gateway.log").open("wb") as gateway_log,
        _tethered(wiring.switch_argv(wires, directory), switch_log) as one,
    ):
        children = {"switch": (one, Path(switch_log.name))}
        _await(Fabric(children), (directory / switch.NAME).exists)
        with _tethered(wiring.gateway_argv(wires, directory), gateway_log) as two:
            children["gateway"] = (two, Path(gateway_log.name))
            # The greeting comes once all netdevs are there.
            _await(Fabric(children), lambda: b'"QMP"' in children["gateway"][1].read_bytes())
            yield Fabric(children)


def _tethered(argv: Sequence[str], log: IO[bytes]) -> AbstractContextManager[Process]:
    """A process that a Ctrl-C does not reach before us; the switch ends when its standard input does."""
    words = tethered(argv)
    return process(words, stdin=PIPE, stdout=log, stderr=log, new_session=True)


def _await(running: Fabric, ready: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not ready():
        running.check()
        if time.monotonic() - began > _START:
            raise RehearsalError(f"the rehearsal's network did not start within {_START} s")
        time.sleep(_PAUSE)
