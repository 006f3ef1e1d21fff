"""The report: JSON for programs, a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .jobs import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .roster import Roster
    from .survey import Surveyed

    Report = Mapping[str, Any]

VERSION = 1
#: Columns of the table: heading, name of the finding.
_COLUMNS = (
    ("user", "user"), ("arch", "architecture"), ("hosts", "hosts file"), ("names", "names"),
    ("route", "default route"), ("clock", "clock"), ("MPI", "MPI version"),
)  # fmt: skip
#: A matrix of more nodes than this does not fit a terminal.
_MATRIX = 10
_MIB = 1 << 20


def build(
    roster: Roster,
    surveyed: Sequence[Surveyed],
    result: Result | None,
    started: float,
    seconds: float,
) -> dict[str, Any]:
    """The report as docs/reference/smoke.md describes it; `result` is None where MPI was not to be tried."""
    mpi = result or Result()
    failures = [
        finding.sentence(entry.node.name)
        for entry in surveyed
        for finding in entry.findings
        if finding.ok is False
    ]
    failures += [finding.sentence() for finding in mpi.findings if finding.ok is False]
    if result is not None and mpi.ok is None:
        failures.append("MPI could not be tried: the head does not answer")
    return {
        "version": VERSION,
        "ok": not failures,
        "cluster": roster.cluster,
        "started": started,
        "seconds": round(seconds, 1),
        "nodes": [entry.to_json() for entry in surveyed],
        "mpi": {
            "flavour": roster.flavour,
            "version": mpi.version,
            "ranks": mpi.ranks,
            "slots": mpi.slots,
            "ok": mpi.ok,
            "checks": [finding.to_json() for finding in mpi.findings],
        },
        "pairs": mpi.pairs,
        "traffic": mpi.traffic,
        "failures": failures,
    }


def table(report: Report, most: int | None = None) -> str:
    """The report for people; tables wider than `most` go on below."""
    parts = [
        "\n".join(_aligned([*_nodes(report)], most)),
        "\n".join(_mpi(report["mpi"])),
        "\n".join(_aligned([*_pairs(report)], most)),
        "\n".join(_aligned([*_traffic(report)], most)),
        "\n".join(_end(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _nodes(report: Report) -> Iterator[list[str]]:
    notes = ("temperature", "link")
    yield ["node", "address", *(heading for heading, _ in _COLUMNS), "shares", *notes]
    for node in report["nodes"]:
        checks = {check["name"]: check for check in node["checks"]}
        if checks.get("reachable", {}).get("ok") is False:
            yield [node["name"], node["address"], "no answer"]
            continue
        shares = [c for n, c in checks.items() if n.startswith(("share ", "file on "))]
        yield [
            node["name"], node["address"],
            *(_mark(checks.get(name)) for _, name in _COLUMNS),
            _mark({"ok": all(c["ok"] is not False for c in shares)} if shares else None),
            *(str(checks.get(name, {}).get("found") or "-") for name in notes),
        ]  # fmt: skip


def _mark(check: Mapping[str, Any] | None) -> str:
    if check is None:
        return "-"
    return {True: "ok", False: "FAILED", None: "?"}[check["ok"]]


def _mpi(mpi: Mapping[str, Any]) -> Iterator[str]:
    if mpi["flavour"] is None:
        return
    if mpi["ok"] is None:
        yield f"{mpi['flavour']}: not tried"
        return
    yield f"{mpi['flavour']} {mpi['version'] or '(no version)'}, {mpi['ranks']} ranks"
    for check in mpi["checks"]:
        mark = _mark(check) if check["ok"] is not None else "note"
        yield f"  {check['name']:<20} {mark:<7} {check['found'] or '-'}"


def _pairs(report: Report) -> Iterator[list[str]]:
    """Half a round trip in microseconds above the diagonal, MiB/s below it."""
    names = [node["name"] for node in report["nodes"]]
    if not report["pairs"] or len(names) > _MATRIX:
        return
    place = {name: number for number, name in enumerate(names)}
    rows = [["µs above, MiB/s below", *names], *([name, *["-"] * len(names)] for name in names)]
    for pair in report["pairs"]:
        low, high = sorted((place.get(pair["from"], -1), place.get(pair["to"], -1)))
        if low >= 0:
            rows[low + 1][high + 1] = f"{pair['latency_us']:.0f}"
            rows[high + 1][low + 1] = f"{pair['bandwidth_mib_s']:.1f}"
    yield from rows


def _traffic(report: Report) -> Iterator[list[str]]:
    if report["traffic"]:
        yield ["node", "wire", "MiB", "others"]
    for row in report["traffic"]:
        others = ", ".join(f"{o['interface']} {_mib(o)}" for o in row["other"])
        yield [row["node"], row["wired"]["interface"], _mib(row["wired"]), others or "none"]


def _mib(row: Mapping[str, Any]) -> str:
    return f"{(row['tx_bytes'] + row['rx_bytes']) / _MIB:.1f}"


def _end(report: Report) -> Iterator[str]:
    for failure in report["failures"]:
        yield f"failed: {failure}"
    count = len(report["failures"])
    state = "all is well" if report["ok"] else f"{count} failure{'s' * (count != 1)}"
    yield f"{report['cluster']}: {state}, {report['seconds']:.0f} s"


def _aligned(rows: Sequence[Sequence[str]], most: int | None) -> list[str]:
    """Cells under their headings; a row may end early. Columns beyond `most` begin a table of their own below."""
    count = max(map(len, rows), default=0)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(count)]
    lines: list[str] = []
    for group in _groups(widths, most):
        lines += [""] if lines else []
        for row in rows:
            cells = [row[column].ljust(widths[column]) for column in group if column < len(row)]
            lines.append("  ".join(cells).rstrip())
    return lines


def _groups(widths: Sequence[int], most: int | None) -> list[list[int]]:
    """The columns of each table, the first one in all of them."""
    groups = [[0]] if widths else []
    taken = widths[0] if widths else 0
    for column, width in enumerate(widths[1:], 1):
        taken += 2 + width
        if most is not None and taken > most and len(groups[-1]) > 1:
            groups.append([0])
            taken = widths[0] + 2 + width
        groups[-1].append(column)
    return groups
