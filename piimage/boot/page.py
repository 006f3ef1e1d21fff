"""The rehearsal's page: one HTML file without scripts, fonts or images from elsewhere; light and dark."""

from __future__ import annotations

import time
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from piimage.boot.heatmap import number, svg
from piimage.boot.smoke import matrix
from piimage.disk.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    Report = Mapping[str, Any]

_MARKS = {
    True: '<span class="good">✓</span>',
    False: '<span class="bad">✗</span>',
    None: '<span class="unasked">?</span>',
}


def write(report: Report, path: Path) -> None:
    """Write the page of a cluster's rehearsal (`ClusterRehearsal.to_json`), whole or not at all."""
    write_bytes(path, html(report).encode(), mode=0o600)


def html(report: Report) -> str:
    """The page as text. `smoke` None means that the smoke test did not run."""
    smoke = report["smoke"] or {}
    name = escape(report["cluster"])
    style = files("piimage.boot").joinpath("page.css").read_text(encoding="utf-8")
    body = [
        _head(report, smoke),
        _problems(report["problems"]),
        _pairs(smoke),
        _nodes(report["nodes"], smoke),
        _mpi(smoke),
        _checks("Checks of the whole", report["findings"]),
        _tested(smoke.get("nodes", ())),
        _list("Not as on a card", report["additions"]),
        _list("Not rehearsed", report["not_rehearsed"]),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: rehearsal</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _head(report: Report, smoke: Report) -> str:
    count = len(report["problems"])
    verdict = (
        '<span class="good">passed</span>'
        if report["ok"]
        else f'<span class="bad">failed: {count} problem{"s" * (count != 1)}</span>'
    )
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report["started"]))
    how = "emulated processors (TCG)" if report["accel"] == "tcg" else report["accel"].upper()
    order = ", ".join(report["order"])
    started = f"one after another: {order}" if report["one_by_one"] else "all at once"
    took = ", ".join(f"{k.replace('_', ' ')} {v:.0f} s" for k, v in report["timings"].items())
    mpi = smoke.get("mpi") or {}
    ranks = f"{mpi['ranks']} MPI ranks, " if mpi.get("ranks") else ""
    what = (
        f"{when}. {len(report['nodes'])} nodes in QEMU, {ranks}{how}, {report['memory']} MiB each"
    )
    lines = [
        f'<p class="verdict">Rehearsal {verdict}</p>',
        f'<p class="soft">{escape(what)}, started {escape(started)}.</p>',
        f'<p class="soft">{escape(took)}.</p>' if took else "",
    ]
    if report["killed"]:
        lines.append(f"<p>The power of {escape(report['killed'])} was cut.</p>")
    return f"<h1>{escape(report['cluster'])}</h1>\n" + "\n".join(filter(None, lines))


def _problems(problems: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(words)}</li>" for words in problems)
    return _section("Problems", f"<ul>{items}</ul>") if items else ""


def _text(words: str) -> str:
    """A sentence; the console lines that may follow it keep their shape."""
    first, _, rest = words.partition("\n")
    return f'<span class="bad">{escape(first)}</span>' + (f"<pre>{escape(rest)}</pre>" * bool(rest))


def _pairs(smoke: Report) -> str:
    """Latency and bandwidth of each pair of nodes."""
    if not smoke.get("pairs"):
        return ""
    names = [node["name"] for node in smoke["nodes"]]
    sections = []
    for key, title, unit, what, sense in (
        ("latency_us", "Latency", "µs", "Half a round trip of 8 bytes", "slower"),
        ("bandwidth_mib_s", "Bandwidth", "MiB/s", "Messages of 1 MiB", "faster"),
    ):
        values = matrix(smoke, key)
        low, high = number(min(values.values())), number(max(values.values()))
        words = f"{what} between row and column: {low} to {high} {unit}. Stronger is {sense}."
        if len(values) < len(names) * (len(names) - 1):
            words += " Dashed: no answer."
        drawn = svg(
            names, values, title=f"{title} in {unit} from each node to each other", unit=unit
        )
        note = f'<p class="soft">{words}</p>'
        sections.append(_section(f"{title}, {unit}", note + drawn))
    return f'<div class="side">\n{"".join(sections)}</div>'


def _nodes(nodes: Sequence[Report], smoke: Report) -> str:
    """A line for each node: how long it took, what it kept, what its interfaces carried."""
    tested = {node["name"]: node for node in smoke.get("nodes", ())}
    traffic = {entry["node"]: entry for entry in smoke.get("traffic", ())}
    slots = (smoke.get("mpi") or {}).get("slots", {})
    head = "node,address,login s,checks s,off s,checks,smoke test,slots,wire MiB,elsewhere MiB"
    rows = []
    for node in nodes:
        name, times = node["name"], node["timings"]
        failed = len(node["failed"])
        kept = f"{node['checks'] - failed} of {node['checks']}"
        carried = traffic.get(name)
        state = _MARKS[node["ok"]]
        rows.append(
            [
                f"{state} {escape(name)}",
                escape(str(tested.get(name, {}).get("address", ""))),
                *(f"{times[k]:.0f}" if k in times else "" for k in ("login", "facts", "power_off")),
                kept if node["checks"] else "",
                _MARKS[tested[name]["ok"]] if name in tested else "",
                str(slots.get(name, "")),
                _mib([carried["wired"]]) if carried else "",
                _mib(carried["other"]) if carried else "",
            ]
        )
    return _section("Nodes", _table(head.split(","), rows))


def _mib(interfaces: Iterable[Report]) -> str:
    return number(sum(i["tx_bytes"] + i["rx_bytes"] for i in interfaces) / (1 << 20))


def _tested(nodes: Sequence[Report]) -> str:
    """The smoke test's checks of single nodes: a line each, a column for each node; the pointer shows more."""
    found = {(c["name"], node["name"]): c for node in nodes for c in node["checks"]}
    names = dict.fromkeys(check for check, _ in found)
    rows = [[escape(name), *(_mark(found.get((name, n["name"]))) for n in nodes)] for name in names]
    head = ["check", *(node["name"] for node in nodes)]
    return _section("Smoke test on each node", _table(head, rows)) if rows else ""


def _mark(check: Report | None) -> str:
    """A check of one node: its mark, or what was found where nothing was judged."""
    if check is None:
        return ""
    if check["ok"] is None and check["found"]:
        return f'<span class="soft">{_shown(check["found"])}</span>'
    said = f"expected {_shown(check['expected'])}; found {_shown(check['found'])}"
    return f'<span title="{said}">{_MARKS[check["ok"]]}</span>'


def _shown(value: object) -> str:
    return "" if value is None else escape(str(value))


def _mpi(smoke: Report) -> str:
    mpi = smoke.get("mpi")
    if not mpi or mpi["flavour"] is None:
        return ""
    what = f"{escape(mpi['flavour'])} {_shown(mpi['version'])}, {mpi['ranks']} ranks"
    return _checks(f"MPI: {what}", mpi["checks"])


def _checks(title: str, checks: Sequence[Report]) -> str:
    rows = [
        [_MARKS[c["ok"]], escape(c["name"]), _shown(c["expected"]), _shown(c["found"])]
        for c in checks
    ]
    return _section(title, _table(["", "check", "expected", "found"], rows)) if rows else ""


def _list(title: str, sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(words)}</li>" for words in sentences)
    return _section(title, f"<ul>{items}</ul>") if items else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells of `rows` are HTML."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>\n" for row in rows)
    return f"<table>\n<tr>{names}</tr>\n{lines}</table>"


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>\n"
