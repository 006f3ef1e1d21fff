"""A card with faults: nbdkit plays it, nbdfuse makes it a file, a loop device with direct I/O makes it a device.

The same file is nbdkit's plugin. Faults are told by a JSON file that each request looks into: `real` bytes are there
and the rest `wraps` or `swallows` (`kind`); `fail`, `flip` and `die` are lists of `[read, write or flush, first byte,
last byte, times, after]`, which strike once `after` writes have touched the place; `kill` is `[file with the number of
a process, number of a request, number of a signal]`, where requests count from the first write on; `killed_at` is the
same with a byte, whose writing brings the signal; `log` is a file that gets every write and flush, in turn.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    import nbdkit
except ImportError:  # a test imports this; nbdkit has its own module for its plugins
    nbdkit = None

API_VERSION = 2
ENTRY = struct.Struct("<QQ")
OPTIONS: dict[str, str] = {}


@dataclass
class State:
    """Of nbdkit's plugin: the backing file, the control file as last seen and what it tells, requests counted."""

    fd: int = -1
    seen: str = ""
    faults: dict[str, Any] = field(default_factory=dict)
    count: int = 0


STATE = State()


def config(key, value):
    OPTIONS[key] = value


def get_ready():
    STATE.fd = os.open(OPTIONS["backing"], os.O_RDWR)


def open(_readonly):  # noqa: A001 -- nbdkit names it so
    return 1


def get_size(_handle):
    return int(OPTIONS["size"])


def pread(_handle, buf, offset, _flags):
    faults = _faults("read", offset, len(buf))
    os.preadv(STATE.fd, [buf], _place(faults, offset))
    _flip(faults, "read", buf, offset)


def pwrite(_handle, buf, offset, _flags):
    faults = _faults("write", offset, len(buf))
    data = bytearray(buf)
    _flip(faults, "write", data, offset)
    if faults.get("kind") == "swallows":
        data = data[: max(0, faults["real"] - offset)]
    os.pwritev(STATE.fd, [data], _place(faults, offset))
    _log(faults, offset, data)


def flush(_handle, _flags):
    _log(_faults("flush", 0, 0), 0, b"")


def _log(faults, offset, data):
    """A write, or a flush, which has no bytes."""
    if "log" in faults:
        with Path(faults["log"]).open("ab") as file:
            file.write(ENTRY.pack(offset, len(data)) + data)


def _place(faults, offset):
    return offset % faults["real"] if faults.get("kind") == "wraps" else offset


def _faults(what, offset, length):
    """The faults in force, after those that strike at once."""
    text = Path(OPTIONS["control"]).read_text()
    if text != STATE.seen:
        STATE.seen, STATE.faults, STATE.count = text, json.loads(text), 0
    faults = STATE.faults
    STATE.count += bool(STATE.count or what == "write")
    Path(OPTIONS["control"] + ".count").write_text(str(STATE.count))
    if "kill" in faults and STATE.count == faults["kill"][1]:
        os.kill(int(Path(faults["kill"][0]).read_text()), faults["kill"][2])
    if what == "write" and "killed_at" in faults:
        pid, place, number = faults["killed_at"]
        if offset <= place < offset + length:
            os.kill(int(Path(pid).read_text()), number)
    for fault in faults.get("die", []):
        if _strikes(fault, what, offset, length):
            os._exit(1)
    for fault in faults.get("fail", []):
        if _strikes(fault, what, offset, length):
            nbdkit.set_error(errno.EIO)
            raise RuntimeError("a fault that was asked for")
    return faults


def _flip(faults, what, data, offset):
    for fault in faults.get("flip", []):
        if _strikes(fault, what, offset, len(data)):
            data[max(0, fault[1] - offset)] ^= 0x10


def _strikes(fault, what, offset, length):
    """Whether this fault strikes now; writes to its place are counted in it."""
    kind, first, last, times, after = fault
    touched = first < offset + length and offset <= last
    now = kind == what and times and after <= 0 and (touched or what == "flush")
    if what == "write" and touched:
        fault[4] -= 1
    if now:
        fault[3] -= 1
    return bool(now)


class Card:
    """The emulated card: `device` to write to, `content` to look at what it holds, `server` the process of nbdkit."""

    device: Path
    server: subprocess.Popen[bytes]

    def __init__(self, home, size):
        self.home, self.size = home, size
        self.backing, self.control = home / "backing", home / "faults.json"
        with self.backing.open("wb") as file:
            file.write(b"old!" * (1 << 18))
            file.seek(510)
            file.write(b"\x55\xaa")
            for at in range(1 << 20, size, 1 << 20):
                file.seek(at)
                file.write(b"old!" * (1 << 18))
            file.truncate(size)
        self.faults()

    def faults(self, **values):
        """Let these happen from now on, and nothing else."""
        Path(f"{self.control}.count").write_text("0")
        partial = self.control.with_suffix(".new")
        partial.write_text(json.dumps({"id": time.monotonic(), **values}))
        partial.replace(self.control)

    @property
    def requests(self):
        """Requests since the first write after `faults`."""
        try:
            return int(Path(f"{self.control}.count").read_text() or 0)
        except FileNotFoundError:
            return 0

    def content(self):
        return self.backing.read_bytes()


@contextmanager
def emulated(home: Path, size: int) -> Iterator[Card]:
    """The card, and nothing left of it afterwards."""
    home.mkdir()
    card = Card(home, size)
    socket, mount = home / "socket", home / "mount"
    mount.mkdir()
    with ExitStack() as stack:
        options = [f"control={card.control}", f"backing={card.backing}", f"size={size}"]
        # The socket is there before it is listened to, the file with its number only afterwards.
        ready = home / "pid"
        server = _running("nbdkit", "-f", "-U", socket, "-P", ready, "python", __file__, *options)
        card.server = stack.enter_context(server)
        _wait(ready.exists)
        fuse = _running("nbdfuse", mount / "card", f"nbd+unix:///?socket={socket}")
        stack.enter_context(fuse)
        _wait((mount / "card").exists)
        stack.callback(_done, "fusermount", "-u", "-z", mount)
        made = subprocess.run(
            ["losetup", "--find", "--show", "--direct-io=on", mount / "card"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        card.device = Path(made.stdout.strip())
        stack.callback(_done, "losetup", "--detach", card.device)
        yield card


@contextmanager
def _running(*argv):
    with Path(os.devnull).open("rb") as nothing:
        child = subprocess.Popen(argv, stdin=nothing)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.terminate()
        child.wait()


def _done(*argv):
    subprocess.run(argv, check=False)


def _wait(ready):
    until = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < until, "nbdkit or nbdfuse did not come up"
        time.sleep(0.02)


def logged(path):
    """`(offset, bytes)` of each write and flush in a `log`."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        offset, length = ENTRY.unpack_from(content, at)
        at += ENTRY.size + length
        yield offset, content[at - length : at]


def flash(card, *arguments, pid=None):
    """`piimage flash` onto the card: exit code, events, what it said."""
    child = subprocess.Popen(
        [
            sys.executable, "-m", "piimage", "flash", card.device,
            "--allow", "not-removable", "--json", *map(str, arguments),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if pid is not None:
        pid.write_text(str(child.pid))
    out, said = child.communicate("y\n", timeout=120)
    lines = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
    return child.returncode, lines, said
