"""The part of `piimage boot` that plays several nodes: how they share this machine, and what is printed."""

from __future__ import annotations

import json
import os
import random
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from piimage.cli.table import aligned, room

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from piimage.boot.cluster_report import ClusterRehearsal
    from piimage.boot.joint import Scenario
    from piimage.boot.stage import Options, Stage
    from piimage.boot.testbed import Testbed
    from piimage.cluster import Cluster, Node
    from piimage.emulator import Accel

_RANDOM = "random"
#: A matrix of more nodes is too wide for a terminal; the page has it.
_WIDEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line says; None where it leaves the choice to us."""

    nodes: Sequence[Node]
    smoke: bool
    order: str | None
    kill: str | None
    timeout: float | None
    memory: int | None


def settle(
    cluster: Cluster, wanted: Wanted, options: Options, accel: Accel
) -> tuple[Options, Scenario]:
    """How several nodes share this machine, and what they play.

    Raises `PiimageError` when their memory is not there, `BadParameter` for words that make no sense together.
    """
    from piimage.boot import memory  # noqa: PLC0415 -- start-up time
    from piimage.boot.joint import Scenario  # noqa: PLC0415 -- start-up time

    names = [node.name for node in wanted.nodes]
    if wanted.smoke and len(names) < len(cluster.nodes):
        raise typer.BadParameter("`--smoke` asks every node of the cluster: take `--all`")
    order = _order(cluster, names, wanted.order)
    kill = None if wanted.kill is None else _named(cluster, names, wanted.kill, "--kill")
    each = memory.per_node(len(names), memory.available(), wanted.memory, emulated=accel.emulated)
    crowd = max(1.0, len(names) / (os.cpu_count() or 1))
    if wanted.timeout is None and wanted.order is None:
        options = replace(options, timeout=options.timeout * crowd)
    scenario = Scenario(
        order=order, one_by_one=wanted.order is not None, smoke=wanted.smoke, kill=kill
    )
    return replace(options, memory=each, crowd=crowd), scenario


def _order(cluster: Cluster, names: Sequence[str], words: str | None) -> tuple[str, ...]:
    """All of `names`, those that `words` lists first."""
    if words is None:
        return tuple(names)
    if words == _RANDOM:
        return tuple(random.sample(names, len(names)))
    listed = [_named(cluster, names, word.strip(), "--order") for word in words.split(",")]
    return tuple(dict.fromkeys([*listed, *names]))


def _named(cluster: Cluster, names: Sequence[str], word: str, option: str) -> str:
    """The name of a node that plays, by name or number."""
    try:
        name = cluster.node(word).name
    except KeyError:
        name = ""
    if name not in names:
        raise typer.BadParameter(f"`{option}` names `{word}`; these nodes play: {', '.join(names)}")
    return name


def together(
    stages: Sequence[Stage],
    scenario: Scenario,
    accel: Accel,
    directory: Path,
    source: Path,
    *,
    keep: bool,
    json_output: bool,
) -> None:
    """Play it, print what came of it, and raise the `RehearsalError` that says what failed."""
    from piimage.boot import joint  # noqa: PLC0415 -- start-up time

    hold = _holder(stages[0], directory, source) if keep else None
    result = joint.rehearse(stages, scenario, accel, directory, hold=hold)
    place = joint.home(directory)
    if json_output:
        print(json.dumps(result.to_json(), indent=2))  # noqa: T201 -- cli prints
    else:
        print("\n".join(lines(result, place, room())))  # noqa: T201 -- cli prints
    result.check(place)


def _holder(
    stage: Stage, directory: Path, source: Path
) -> Callable[[Testbed, Sequence[str]], None]:
    """Keeps the cluster up until Ctrl-C, or until its nodes have switched themselves off."""
    progress = stage.progress
    where = (
        [] if source.name == "cluster.yaml" and not source.parent.name else ["--cluster", source]
    )
    default = source.parent / "dist" / stage.cluster.name
    where += [] if directory == default else ["--output", directory]

    def hold(bed: Testbed, names: Sequence[str]) -> None:
        words = shlex.join(["piimage", "ssh", *map(str, where)])
        progress.say(f"running until Ctrl-C; `{words} NODE` logs in to {', '.join(names)}")
        try:
            bed.hold(lambda name: progress.say(f"{name} has switched itself off"))
        except KeyboardInterrupt:
            progress.say("switching off")

    return hold


def lines(result: ClusterRehearsal, place: Path, most: int | None = None) -> list[str]:
    """The table for people, `most` columns wide: a line per node, the smoke test's matrices, where the rest is."""
    from piimage.boot import cluster_report, smoke  # noqa: PLC0415 -- start-up time

    rows = [["node", "login", "facts", "off", "checks", "smoke"]]
    tested = {n["name"]: n["ok"] for n in (result.smoke or {}).get("nodes", ())}
    for name, node in result.nodes.items():
        times = [
            f"{node.timings[key]:.0f} s" if key in node.timings else "-"
            for key in ("login", "facts", "power_off")
        ]
        count = len(node.findings)
        kept = f"{count - len(node.failed)} of {count}" if node.error is None else "did not come up"
        passed = {True: "ok", False: "failed", None: "-"}[tested.get(name)]
        rows.append([name, *times, kept, passed])
    said = aligned(rows, most)
    if result.smoke is not None:
        said += _smoke(result.smoke, most)
    took = ", ".join(f"{k.replace('_', ' ')} {v:.0f} s" for k, v in result.timings.items())
    said.append(f"{took}  {place / cluster_report.REPORT}")
    if (place / smoke.PAGE).exists():
        said.append(f"page: {place / smoke.PAGE}")
    return said


def _smoke(report: dict[str, Any], most: int | None) -> list[str]:
    """The verdict; half a round trip in microseconds above the diagonal, MiB/s below it."""
    from piimage.boot.heatmap import number  # noqa: PLC0415 -- start-up time
    from piimage.boot.smoke import matrix  # noqa: PLC0415 -- start-up time

    mpi, names = report.get("mpi") or {}, [node["name"] for node in report.get("nodes", ())]
    said = f"smoke test: {'passed' if report['ok'] else 'failed'}"
    if mpi.get("version"):
        said += f" ({mpi['flavour']} {mpi['version']}, {mpi['ranks']} ranks)"
    above, below = matrix(report, "latency_us"), matrix(report, "bandwidth_mib_s")
    if not above or len(names) > _WIDEST:
        return [said]
    rows = [["us above, MiB/s below", *names]]
    for row, a in enumerate(names):
        pairs = [(above if column > row else below).get((a, b)) for column, b in enumerate(names)]
        rows.append([a, *("-" if value is None else number(value) for value in pairs)])
    return [said, "", *aligned(rows, most), ""]
