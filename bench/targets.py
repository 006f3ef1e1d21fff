"""What the comparisons of `piimage flash` write to: loop devices with direct I/O over memory, as quick as wanted.

The same file is nbdkit's plugin for a card that reads faster than it writes, and does one thing at a time, as real
ones do; nbdkit's own rate filter limits reading and writing each for itself, and to the same rate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MIB = 1 << 20
API_VERSION = 2
COMMAND = (sys.executable, "-m", "piimage", "flash")
CONSENT = ("--allow", "not-removable", "--json")
_BURST = 0.05
_OPTIONS: dict[str, str] = {}
_STATE: dict[str, float] = {"free": 0.0}


def config(key: str, value: str) -> None:
    _OPTIONS[key] = value


def get_ready() -> None:
    _STATE["fd"] = os.open(_OPTIONS["backing"], os.O_RDWR)


def open(_readonly: bool) -> int:  # noqa: A001, FBT001 -- nbdkit names and calls it so
    return 1


def get_size(_handle: int) -> int:
    return os.fstat(int(_STATE["fd"])).st_size


def pread(_handle: int, buf: bytearray, offset: int, _flags: int) -> None:
    os.preadv(int(_STATE["fd"]), [buf], offset)
    _take(len(buf), float(_OPTIONS["read"]))


def pwrite(_handle: int, buf: bytearray, offset: int, _flags: int) -> None:
    os.pwritev(int(_STATE["fd"]), [buf], offset)
    _take(len(buf), float(_OPTIONS["write"]))


def flush(_handle: int, _flags: int) -> None:
    pass


def _take(count: int, rate: float) -> None:
    """Return when a card of `rate` bytes/s would."""
    now = time.monotonic()
    # What was slept too long is made up for, or the card would be slower the smaller its requests are.
    _STATE["free"] = max(now - _BURST, _STATE["free"]) + count / rate
    time.sleep(max(0.0, _STATE["free"] - now))


@dataclass(frozen=True)
class Run:
    """A `piimage flash` that ended: seconds, also of each card, and the most memory that it had, in bytes."""

    seconds: float
    cards: dict[str, float]
    memory: int


@contextmanager
def memory(home: Path, size: int) -> Iterator[Path]:
    """A device as quick as memory; what it holds is in `home/backing`."""
    backing = _backing(home, size)
    with loop(backing) as device:
        yield device


@contextmanager
def limited(home: Path, size: int, rate: float) -> Iterator[Path]:
    """A device that reads and writes `rate` MiB/s each."""
    bits = f"rate={round(rate * MIB * 8)}"
    with _served(home, ["--filter=rate", "file", _backing(home, size), bits]) as device:
        yield device


@contextmanager
def card(home: Path, size: int, read: float, write: float) -> Iterator[Path]:
    """A device that reads `read` MB/s or writes `write` MB/s."""
    rates = [f"read={read * 1e6}", f"write={write * 1e6}"]
    with _served(home, ["python", __file__, f"backing={_backing(home, size)}", *rates]) as device:
        yield device


def _backing(home: Path, size: int) -> Path:
    home.mkdir(exist_ok=True)
    with (home / "backing").open("wb") as file:
        file.truncate(size)
    return home / "backing"


@contextmanager
def _served(home: Path, plugin: Sequence[object]) -> Iterator[Path]:
    socket, mount = home / "socket", home / "mount"
    mount.mkdir()
    # nbdkit writes its number once it listens; its socket is there before that.
    ready = home / "pid"
    with ExitStack() as stack:
        for command, there in (
            (["nbdkit", "-f", "-U", socket, "-P", ready, *plugin], ready),
            (["nbdfuse", mount / "card", f"nbd+unix:///?socket={socket}"], mount / "card"),
        ):
            child = subprocess.Popen(list(map(str, command)))
            stack.callback(child.wait)
            stack.callback(child.terminate)
            while not there.exists():
                time.sleep(0.05)
        stack.callback(subprocess.run, ["fusermount", "-u", "-z", mount], check=False)
        yield stack.enter_context(loop(mount / "card"))


@contextmanager
def loop(file: Path, *more: str) -> Iterator[Path]:
    """A loop device with direct I/O over the file, made by `losetup` with `more` options."""
    argv = ["losetup", "--find", "--show", "--direct-io=on", *more, str(file)]
    device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=False)


def timed(argv: Sequence[object]) -> float:
    start = time.monotonic()
    subprocess.run(list(map(str, argv)), check=True, capture_output=True)
    return time.monotonic() - start


def flash(
    *arguments: object, until: Callable[[int], bool] = lambda _: False, cards: int | None = None
) -> Run:
    """`piimage flash` as a whole command; it is killed once `until(bytes done)`, or so many `cards` are done."""
    start = time.monotonic()
    ended: dict[str, float] = {}
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments), *CONSENT],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"y\n")
        child.stdin.flush()
        killed = False
        most = [0]
        watch = Thread(target=_watch, args=(child, most))
        watch.start()
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "done":
                ended[event["card"]] = time.monotonic() - start
            enough = len(ended) == cards or until(event.get("done", 0))
            if not killed and enough:
                killed = True
                child.kill()
        watch.join()
    assert killed or child.returncode == 0, f"piimage flash ended with {child.returncode}"
    return Run(time.monotonic() - start, ended, most[0])


def _watch(child: subprocess.Popen[bytes], most: list[int]) -> None:
    """Put into `most` what memory the process has had at most, in bytes, until it ends.

    What the kernel tells of a process that has ended (`ru_maxrss`) counts the memory of who started it as well.
    """
    while child.poll() is None:
        with suppress(OSError):
            for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    most[0] = int(line.split()[1]) << 10
        time.sleep(0.01)
