"""The smoke test that a rehearsal runs: the image's own `piimage-smoke`, on the head, as the first user, by ssh.

Before it, NIC 2 of every node is brought up as a stand-in for Wi-Fi. QEMU gives every node the same address there,
so that an MPI which is not pinned to the wire finds the wrong peers, and the interface counters tell who used it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from piimage.boot import guest
from piimage.boot.wiring import OTHER_ADDRESS, OTHER_GATEWAY
from piimage.disk.atomic import write_bytes
from piimage.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.boot.guest import Access
    from piimage.boot.qemu import Vm
    from piimage.run import Result

VERSION = 1
REPORT, PAGE = "smoke.json", "smoke.html"
#: Seconds for each part of piimage-smoke on boards: its own default.
PART = 120
#: Exit statuses of piimage-smoke with which it prints a report: all well, something failed.
_REPORTED = (0, 1)
_NOT_FOUND = 127
#: Said in the report: the card does not do this.
ADDITION = (
    f"the second NIC was brought up over ssh as a stand-in for Wi-Fi ({OTHER_ADDRESS} on every node, default"
    f" route via {OTHER_GATEWAY}, metric 600)"
)
#: The metric is NetworkManager's for Wi-Fi.
_STAND_IN = f"""\
set -e
for place in /sys/class/net/*; do
    [ "$(cat "$place/address")" != "$1" ] || name=${{place##*/}}
done
sudo -n ip link set dev "$name" up
sudo -n ip address replace {OTHER_ADDRESS} dev "$name"
sudo -n ip route replace default via {OTHER_GATEWAY} dev "$name" metric 600
"""


def stand_in(way: Access, vm: Vm, mac: str, *, reach: float) -> None:
    """Bring NIC 2 up; raises `RehearsalError` when the node does not let us."""
    done = guest.call(
        way, f"sh -s -- {mac}", vm, stdin=_STAND_IN.encode(), reach=reach, limit=reach
    )
    if done.returncode != 0:
        raise RehearsalError(
            f"the second NIC of `{way.name}` could not be brought up: {_words(done)}",
            hint="the first user of cluster.yaml needs `sudo: nopasswd` for that",
        )


def run(way: Access, vm: Vm, *, part: float, reach: float, limit: float) -> dict[str, Any]:
    """The report of `piimage-smoke`, whether all was well or not; each part of it has `part` seconds.

    As long it waits for the nodes' clocks: they were set in whole seconds, and chrony takes its time after a start.
    Raises `RehearsalError` when there is no report: the image lacks it, it failed, or took over `limit` seconds.
    """
    command = f"piimage-smoke --json --limit {part:.0f} --wait {part:.0f}"
    done = guest.call(way, command, vm, reach=reach, limit=limit)
    if done.returncode == _NOT_FOUND:
        raise RehearsalError(
            f"`{way.name}` has no `piimage-smoke`", hint="name `mpi` in cluster.yaml and build anew"
        )
    if done.returncode not in _REPORTED:
        raise RehearsalError(f"the smoke test could not run: {_words(done)}")
    report = guest.answer(done.stdout)
    if report.get("version") != VERSION:
        raise RehearsalError(
            f"the smoke test speaks version {report.get('version')} of its report, expected {VERSION}",
            hint="build the images with this piimage",
        )
    if report.get("ok") is not (done.returncode == 0):
        raise RehearsalError(
            f"the smoke test says ok: {report.get('ok')} and ends with status {done.returncode}"
        )
    return report


def matrix(report: Mapping[str, Any], key: str) -> dict[tuple[str, str], float]:
    """What was measured between nodes, by name, both ways: a pair is measured once (docs/reference/smoke.md)."""
    found = {(pair["from"], pair["to"]): float(pair[key]) for pair in report.get("pairs", ())}
    return {(b, a): value for (a, b), value in found.items()} | found


def write(report: dict[str, Any] | None, path: Path) -> None:
    """Keep the report by itself, if there is one."""
    if report is not None:
        write_bytes(path, json.dumps(report, indent=1).encode() + b"\n", mode=0o600)


def _words(done: Result) -> str:
    text = guest.last(done.stderr) or guest.last(done.stdout)
    return text or f"status {done.returncode}"
