"""Which interface the messages took: the kernel's counters before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The share of the wired interface's bytes that all others may have carried meanwhile.
LIMIT = 0.02
#: With less on the wire there was nothing to judge.
_LEAST = 1 << 20


def deltas(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each node's interfaces carried: the report's `traffic`. Nodes without both readings are left out."""
    found = []
    for name, old in before.items():
        new = after.get(name)
        if old is None or new is None or old["wired"] is None:
            continue
        rows = {
            interface: {
                "interface": interface,
                "tx_bytes": max(count[1] - old["bytes"].get(interface, count)[1], 0),
                "rx_bytes": max(count[0] - old["bytes"].get(interface, count)[0], 0),
            }
            for interface, count in new["bytes"].items()
        }
        wired = rows.pop(old["wired"], None)
        if wired is not None:
            found.append({"node": name, "wired": wired, "other": list(rows.values())})
    return found


def judge(traffic: list[dict[str, Any]]) -> Finding:
    """A finding about all nodes: no other interface took part."""
    strays = []
    judged = False
    for row in traffic:
        wired = _bytes(row["wired"])
        judged = judged or wired >= _LEAST
        for other in row["other"]:
            carried = _bytes(other)
            if carried >= _LEAST * LIMIT and carried >= LIMIT * wired:
                strays.append(
                    f"{other['interface']} of {row['node']} {_mib(carried)}"
                    f" ({row['wired']['interface']} {_mib(wired)})"
                )
    words = f"MPI left the wire: {', '.join(strays)}"
    ok: bool | None = not strays
    if not strays and not judged:
        ok = None
    expected = f"under {LIMIT:.0%} beside the wire"
    return Finding("traffic", ok, expected, ", ".join(strays) or "only the wire", words)


def _bytes(row: Mapping[str, Any]) -> int:
    return int(row["tx_bytes"]) + int(row["rx_bytes"])


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
