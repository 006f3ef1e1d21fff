"""How much memory each node gets, so that all of them fit into this machine. MiB throughout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from piimage.errors import PiimageError

#: What a node has unless the machine is too small for that, and the least that Debian and MPI run in.
DEFAULT, LEAST = 1024, 512
#: What QEMU takes beside a node's memory: devices, and where it emulates, the code that it has translated. A boot to
#: the login translates some 600 MiB; with less room QEMU throws all of it away now and then, and begins again.
_QEMU, _TRANSLATED, _AT_LEAST = 64, 1024, 256
#: Left to the rest of the machine.
_SPARED = 512
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Share:
    """One node's part of this machine: its memory, and QEMU's room for translated code where it emulates."""

    node: int = DEFAULT
    translated: int = _TRANSLATED


def available(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """What this machine, or the control group that we run in, can give now without swapping.

    Sources: proc(5), `MemAvailable`; the kernel's cgroup-v2.rst, `memory.max`, `memory.current`.
    """
    text = (proc / "meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable: *(\d+) kB", text, re.MULTILINE)
    machine = int(found[1]) >> 10 if found else 0
    group = _group(proc, cgroups)
    return machine if group is None else min(machine, group)


def _group(proc: Path, cgroups: Path) -> int | None:
    """What the nearest control group with a limit has left; its page cache counts as free."""
    try:
        text = (proc / "self/cgroup").read_text(encoding="utf-8")
    except OSError:
        return None
    name = re.search(r"^0::/(.*)$", text, re.MULTILINE)
    place = cgroups / name[1] if name else cgroups
    for home in (place, *place.parents):
        if not home.is_relative_to(cgroups):
            break
        try:
            limit = int((home / "memory.max").read_text(encoding="ascii"))
            used = int((home / "memory.current").read_text(encoding="ascii"))
            cached = re.search(r"^file (\d+)", (home / "memory.stat").read_text(), re.MULTILINE)
        except (OSError, ValueError):  # no such file, or `max`
            continue
        return (limit - used + (int(cached[1]) if cached else 0)) >> 20
    return None


def most_nodes(free: int, *, emulated: bool) -> int:
    """How many machines fit at once, each with the least."""
    each = LEAST + _QEMU + (_AT_LEAST if emulated else 0)
    return max(0, (free - _SPARED) // each)


def per_node(nodes: int, free: int, wanted: int | None, *, emulated: bool) -> Share:
    """The share of each of `nodes` machines; raises `PiimageError` with the figures when they do not fit."""
    overhead = _QEMU + (_AT_LEAST if emulated else 0)
    room = (free - _SPARED) // nodes - overhead
    least = LEAST if wanted is None else wanted
    if room < least:
        need = nodes * (least + overhead) + _SPARED
        raise PiimageError(
            f"{nodes} nodes with {least} MiB each need {need} MiB of this machine's memory,"
            f" {max(0, free)} MiB are available",
            hint="rehearse some of them with `--node`, give less with `--memory`, or end other programs",
        )
    node = min(DEFAULT, room) if wanted is None else wanted
    return Share(node, min(_TRANSLATED, _AT_LEAST + room - node))
