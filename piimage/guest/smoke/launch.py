"""Programs on all nodes by MPI: the command lines of both flavours, and what comes back."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .findings import Finding
from .reach import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .reach import Said
    from .roster import Node, Roster

SOURCES = ("collective.c", "pairs.c")
#: Seconds for a trial of two nodes, trials at a time, and nodes of which all pairs are tried.
_TRIAL, _AT_ONCE, _FEW = 60.0, 4, 8


@dataclass(frozen=True)
class Trial:
    """Two nodes, and what a program on them said."""

    one: Node
    other: Node
    said: Said


class Mpi:
    """MPI of the roster's flavour, started on the head."""

    def __init__(self, roster: Roster, limit: float) -> None:
        self.roster = roster
        self.limit = limit
        self.everybody = len(roster.nodes)

    def tool(self, name: str) -> str:
        """`mpirun` or `mpicc` of the flavour, whatever else is installed."""
        exact = f"{name}.{self.roster.flavour}"
        return exact if shutil.which(exact) else name

    def start(self, nodes: Sequence[Node], argv: Sequence[str], limit: float | None = None) -> Said:
        """Run `argv` on all slots of `nodes`.

        On all nodes that is `mpirun` without a word about where: the hosts and the interface come
        from the system's own configuration, which is to be tested.
        """
        limit = self.limit if limit is None else limit
        if len(nodes) == self.everybody:
            return run([self.tool("mpirun"), *argv], limit)
        line = "{} slots={}\n" if self.roster.flavour == "openmpi" else "{}:{}\n"
        option = "--hostfile" if self.roster.flavour == "openmpi" else "-f"
        with tempfile.NamedTemporaryFile("w", prefix="piimage-smoke-", suffix=".hosts") as file:
            file.write("".join(line.format(node.name, node.slots) for node in nodes))
            file.flush()
            return run([self.tool("mpirun"), option, file.name, *argv], limit)

    def count(self, nodes: Sequence[Node]) -> tuple[dict[str, int], Finding]:
        """How many processes start on each node, and the finding about it."""
        said = self.start(nodes, ["uname", "-n"])
        short = (line.strip().partition(".")[0] for line in said.out.splitlines())
        names = {node.name for node in self.roster.nodes}
        counted = Counter(name for name in short if name in names)
        found = {node.name: counted.pop(node.name, 0) for node in nodes}
        found.update(counted)
        expected = _counts({node.name: node.slots for node in nodes})
        right = said.status == 0 and _counts(found) == expected
        words = f"`mpirun uname -n` started {_counts(found)}, expected {expected}"
        if said.status != 0:
            words = f"`mpirun` on {_names(nodes)} failed: {said.why}"
        return found, Finding("launch", right, expected, _counts(found), words)

    def trials(self, nodes: Sequence[Node], argv: Sequence[str]) -> list[Trial]:
        """Pairs of nodes on which `argv` fails: all pairs of few nodes, of many those with the head."""
        pairs = [
            pair
            for pair in itertools.combinations(nodes, 2)
            if len(nodes) <= _FEW or self.roster.head in {node.name for node in pair}
        ]
        limit = min(self.limit, max(_TRIAL, self.limit / 4))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            said = pool.map(lambda pair: self.start(pair, argv, limit), pairs)
            tried = [Trial(*pair, result) for pair, result in zip(pairs, said)]
        return [trial for trial in tried if trial.said.status != 0]

    def compile(self, target: Path) -> Finding:
        """The C program at `target`."""
        here = Path(__file__).parent
        sources = [str(here / name) for name in SOURCES]
        argv = [self.tool("mpicc"), "-std=c11", "-O2", "-o", str(target), *sources]
        said = run(argv, self.limit)
        words = f"`{argv[0]}` on {self.roster.head} failed: {said.why}"
        found = "a program" if said.status == 0 else said.why
        return Finding("compile", said.status == 0, "a program", found, words)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _names(nodes: Sequence[Node]) -> str:
    return ", ".join(node.name for node in nodes)


def lines(out: str) -> list[dict[str, Any]]:
    """The JSON objects of a program's output; other lines are MPI's own."""
    found = []
    for line in out.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
