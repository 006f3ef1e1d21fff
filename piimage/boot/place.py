"""Where a rehearsal of a node leaves what it saw, and what keeps two of them apart."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from piimage.boot.machine import Machine
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.cluster import Node

REPORT, CONSOLE, MESSAGES = "report.json", "console.log", "qemu.log"
#: What `guest.write_access` writes: there only while there is somebody to let in.
SSH_CONFIG, KNOWN_HOSTS = "ssh_config", "known_hosts"


def directory(output: Path, node: Node, machine: Machine = Machine.VIRT) -> Path:
    """Where console and report are kept: below the artifacts, one place per node and machine."""
    place = output / "rehearsal" / node.name
    return place if machine is Machine.VIRT else place / machine.value


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Make the place and hold it: two rehearsals of one node would write one console.

    What an earlier one left of its way in is removed. Raises `PiimageError` for the second.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in (SSH_CONFIG, KNOWN_HOSTS):
            (place / name).unlink(missing_ok=True)
        yield
    except BlockingIOError:
        raise PiimageError(
            f"another rehearsal is using `{place}`", hint="wait for it, or end it with Ctrl-C"
        ) from None
    finally:
        os.close(descriptor)


def in_use(place: Path) -> bool:
    """Whether a rehearsal holds the place now; one that was killed does not."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A directory for kernel and overlay; what a killed rehearsal left there goes first."""
    path = place / "scratch"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """`count` ports of the loopback that nobody has now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
