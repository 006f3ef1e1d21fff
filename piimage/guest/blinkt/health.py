"""How the node is, in seven findings. Nothing here touches a share itself: one whose server is dead would hang us.

Sources: /proc and /sys of Linux, `systemctl show`, `chronyc -c tracking` (fields in the order of its report). The
power supply is judged by the firmware's `get_throttled` where the vendor's kernel shows it, else by the alarm of the
kernel's driver raspberrypi-hwmon; Debian 13's kernel has neither.
"""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    #: Runs a program and gives its output, None when it fails.
    Ask = Callable[[Sequence[str]], Optional[str]]

#: Degrees Celsius; the firmware slows the processor down from 80 on.
_WARM, _HOT = 70.0, 80.0
#: Shares of the root file system in use.
_FILLING, _FULL = 0.85, 0.95
#: Seconds that a program may take, and seconds from one look to the next.
_LIMIT, _PAUSE = 5.0, 10.0
#: `chronyc -c tracking`: reference id, leap status; the id of chronyd's own clock (`local` in chrony.conf).
_REFID, _LEAP, _OWN_CLOCK = 0, 13, "7F7F0101"
#: Bits of get_throttled: under-voltage, capped, throttled, soft limit; the same since boot, 16 places higher.
_NOW, _SINCE_BOOT = 0xF, 0xF0000
_ETHERNET = "1"


class State(Enum):
    """How good or bad a finding is."""

    OK = "ok"
    WAITING = "waiting"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One property of the node: its `state`, and the same in `words`."""

    name: str
    state: State
    words: str


@dataclass(frozen=True)
class Share:
    """A shared folder: its mount point, and the name of the node that exports it."""

    path: str
    server: str


def findings(root: Path, shares: Sequence[Share], host: str, ask: Ask) -> list[Finding]:
    """All findings, in the order of the LEDs; `root` is where /proc, /sys and /var are found."""
    return [
        system(ask),
        share(root, shares, host),
        clock(ask),
        temperature(root),
        power(root),
        wire(root),
        disk(root),
    ]


def answer(argv: Sequence[str]) -> str | None:
    """The output of a program, None when it fails, is missing or takes more than five seconds."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_LIMIT, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def system(ask: Ask) -> Finding:
    """Failed units, or a boot that is still under way."""
    name = "system"
    text = ask(("systemctl", "show", "--property=NFailedUnits,SystemState"))
    values = dict(line.partition("=")[::2] for line in (text or "").splitlines())
    failed = values.get("NFailedUnits", "")
    if not failed.isdecimal():
        return Finding(name, State.UNKNOWN, "no answer")
    if failed != "0":
        return Finding(name, State.BAD, f"{failed} failed unit{'s' * (failed != '1')}")
    if values.get("SystemState") in {"initializing", "starting", "stopping"}:
        return Finding(name, State.WAITING, values["SystemState"])
    return Finding(name, State.OK, "ok")


def share(root: Path, shares: Sequence[Share], host: str) -> Finding:
    """The worst of all shares: exported where this node serves them, mounted or waiting elsewhere."""
    if not shares:
        return Finding("share", State.UNKNOWN, "none")
    mounts = _mounts(root)
    exports = {line.partition("\t")[0] for line in _read(root / "var/lib/nfs/etab").splitlines()}
    if _read(root / "proc/fs/nfsd/threads").strip() == "0":
        exports = set()
    found = []
    for one in shares:
        if one.server == host:
            up = one.path in exports
            found.append((State.OK, "exported") if up else (State.BAD, "not exported"))
        else:
            found.append(_mounted(mounts.get(one.path, ())))
    worst, words = max(found, key=lambda item: list(State).index(item[0]))
    return Finding("share", worst, words)


def _mounted(types: Sequence[str]) -> tuple[State, str]:
    """By the types of what is mounted at a place: an automount is there before its share is."""
    if any(kind.startswith("nfs") for kind in types):
        return State.OK, "mounted"
    if "autofs" in types:
        return State.WAITING, "waits for its first use"
    return State.BAD, "not mounted"


def _mounts(root: Path) -> dict[str, list[str]]:
    """Mount point -> types, from mountinfo of proc(5), which writes blanks in octal."""
    found: dict[str, list[str]] = {}
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 4 and after:  # noqa: PLR2004 -- the fifth field is the mount point
            path = fields[4].replace("\\040", " ")
            found.setdefault(path, []).append(after.split()[0])
    return found


def clock(ask: Ask) -> Finding:
    """Whether chronyd follows a source, or the head's own clock for want of one."""
    # By address: the way over its socket wants to write in chronyd's directory.
    fields = (ask(("chronyc", "-h", "127.0.0.1", "-c", "tracking")) or "").strip().split(",")
    if len(fields) <= _LEAP:
        return Finding("clock", State.WARNING, "no answer")
    if fields[_LEAP] == "Not synchronised":
        return Finding("clock", State.WARNING, "not synchronised")
    if fields[_REFID] == _OWN_CLOCK:
        return Finding("clock", State.WAITING, "follows itself")
    return Finding("clock", State.OK, "synchronised")


def temperature(root: Path) -> Finding:
    """The hottest sensor."""
    texts = [_read(path) for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(text) / 1000 for text in texts if text.strip().lstrip("-").isdecimal()]
    if not degrees:
        return Finding("temperature", State.UNKNOWN, "no sensor")
    return _graded("temperature", max(degrees), (_WARM, _HOT), f"{max(degrees):.0f} C")


def power(root: Path) -> Finding:
    """Under-voltage or throttling, now or since boot."""
    for path in sorted((root / "sys/devices/platform").glob("*/*:firmware/get_throttled")):
        try:
            bits = int(_read(path), 16)
        except ValueError:
            continue
        if bits & _NOW:
            return Finding("power", State.BAD, f"throttled now (0x{bits:x})")
        if bits & _SINCE_BOOT:
            return Finding("power", State.WARNING, f"throttled since boot (0x{bits:x})")
        return Finding("power", State.OK, "ok")
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _read(sensor / "name").strip() == "rpi_volt":
            low = _read(sensor / "in0_lcrit_alarm").strip() == "1"
            return Finding("power", State.BAD, "low") if low else Finding("power", State.OK, "ok")
    return Finding("power", State.UNKNOWN, "no sensor")


def wire(root: Path) -> Finding:
    """Whether a wired port has a carrier. Reading the carrier of a port that is down fails (EINVAL)."""
    ports = [
        port
        for port in sorted((root / "sys/class/net").glob("*"))
        if _read(port / "type").strip() == _ETHERNET
        and (port / "device").exists()
        and not (port / "phy80211").exists()
    ]
    if not ports:
        return Finding("wire", State.BAD, "no port")
    up = [port.name for port in ports if _read(port / "carrier").strip() == "1"]
    return Finding("wire", State.OK, up[0]) if up else Finding("wire", State.BAD, "no carrier")


def disk(root: Path) -> Finding:
    """How full the root file system is for ordinary users."""
    try:
        found = os.statvfs(root)
    except OSError:
        return Finding("disk", State.UNKNOWN, "no answer")
    usable = found.f_blocks - found.f_bfree + found.f_bavail
    used = 1 - found.f_bavail / usable if usable else 0.0
    return _graded("disk", used, (_FILLING, _FULL), f"{used:.0%} used")


def cpu_times(root: Path) -> tuple[int, int]:
    """Ticks that all processors were busy, and all ticks, since boot (proc_stat(5)); zeros when unknown."""
    fields = _read(root / "proc/stat").partition("\n")[0].split()
    if len(fields) < 6 or fields[0] != "cpu":  # noqa: PLR2004 -- the name, and five times up to iowait
        return 0, 0
    # Guest time is counted in user time already, so it is left out of the sum.
    ticks = [int(field) for field in fields[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _graded(name: str, value: float, limits: tuple[float, float], words: str) -> Finding:
    warning, bad = limits
    if value >= bad:
        return Finding(name, State.BAD, words)
    return Finding(name, State.WARNING if value >= warning else State.OK, words)


def _read(path: Path) -> str:
    """A file's text, empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class Watch:
    """Findings that a thread of its own keeps fresh, so that a slow answer does not stop the picture."""

    def __init__(self, look: Callable[[], list[Finding]], pause: float = _PAUSE) -> None:
        self._look, self._pause = look, pause
        self._found: list[Finding] = []
        threading.Thread(target=self._run, daemon=True).start()

    def __call__(self) -> list[Finding]:
        """The last findings; empty before the first look has ended."""
        return self._found

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._found = self._look()
            pause.wait(self._pause)
