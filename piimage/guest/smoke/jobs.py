"""The part of the test that is MPI: launch, compile, run, measure."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import program, traffic
from .findings import Finding
from .launch import Mpi
from .survey import counters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .reach import Said
    from .roster import Node, Roster
    from .scratch import Scratch
    from .survey import Surveyed

#: Seconds that one message may take, and its share of the time for the program.
_MESSAGE, _SHARE = 20.0, 0.25
#: Of fewer nodes there is no pair to try besides the whole.
_PAIRS_SINCE = 3


@dataclass
class Result:
    """What the report says about MPI: `slots` counts what started on each node."""

    version: str | None = None
    ranks: int = 0
    slots: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    traffic: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool | None:
        """Whether nothing failed; None when nothing was judged."""
        judged = [finding.ok for finding in self.findings if finding.ok is not None]
        return all(judged) if judged else None


@dataclass
class Jobs:
    """MPI on the nodes that answered; `progress` hears what comes next."""

    roster: Roster
    surveyed: Sequence[Surveyed]
    scratch: Scratch
    limit: float
    progress: Callable[[str], None]
    result: Result = field(default_factory=Result)

    def run(self) -> Result:
        """All of it; nothing when the head itself does not answer."""
        facts = {entry.node.name: entry.answer.facts for entry in self.surveyed}
        alive = [entry.node for entry in self.surveyed if entry.answer.facts is not None]
        head = facts[self.roster.head]
        if head is None:
            return self.result
        self.result.version = (head["mpi"] or {}).get("version")
        before = counters(self.roster, alive, self.limit)
        self.progress(f"starting MPI on {len(alive)} nodes")
        nodes = self._launch(alive)
        said = self._program(nodes) if nodes else None
        if said is not None:
            self._judge(
                said, nodes, {name: (told or {}).get("board") for name, told in facts.items()}
            )
        after = counters(self.roster, alive, self.limit)
        self.result.traffic = traffic.deltas(before, after)
        if len(alive) > 1:
            self._add(traffic.judge(self.result.traffic))
        return self.result

    @property
    def _mpi(self) -> Mpi:
        return Mpi(self.roster, self.limit)

    def _add(self, *findings: Finding) -> None:
        self.result.findings += findings

    def _launch(self, nodes: list[Node]) -> list[Node]:
        """The nodes on which programs start; what keeps the others from it is in the findings."""
        found, finding = self._mpi.count(nodes)
        self.result.slots, self.result.ranks = found, sum(found.values())
        self._add(finding)
        if finding.ok:
            return nodes
        apart = self._blame(nodes, ["uname", "-n"])
        rest = [node for node in nodes if node.name not in apart]
        alone = len(rest) == 1 and len(nodes) > 1
        return [] if alone else rest

    def _blame(self, nodes: Sequence[Node], argv: Sequence[str]) -> set[str]:
        """Nodes on which `argv` fails together with the head; findings name every pair that fails."""
        head = self.roster.head
        failed = self._mpi.trials(nodes, argv) if len(nodes) >= _PAIRS_SINCE else []
        with_head = [trial for trial in failed if head in {trial.one.name, trial.other.name}]
        apart = {node.name for trial in with_head for node in (trial.one, trial.other)} - {head}
        for trial in failed:
            one, other = trial.one.name, trial.other.name
            if trial not in with_head and apart & {one, other}:
                continue  # one that fails with the head fails with others, too
            words = f"MPI fails on {one} and {other} alone, too: {trial.said.why}"
            self._add(Finding(f"{one} and {other}", False, "MPI on the two", trial.said.why, words))
        return apart

    def _program(self, nodes: Sequence[Node]) -> Said | None:
        """The C program, compiled here, run on all slots: from a share that all have, or from copies."""
        with tempfile.TemporaryDirectory(prefix="piimage-smoke-") as directory:
            share = self._share(nodes)
            target = share or Path(directory, "program")
            self.progress("compiling on the head")
            finding = self._mpi.compile(target)
            self._add(finding)
            if not finding.ok:
                return None
            if share is None:
                target, failed = self.scratch.copy(target, nodes)
                for name, said in failed.items():
                    words = f"the program cannot be copied to {name}: {said.why}"
                    self._add(Finding("copy", False, "a copy", said.why, words))
                if failed:
                    return None
        self.progress(f"running {target} on {len(nodes)} nodes")
        first = min(_MESSAGE, self.limit * _SHARE)
        argv = [str(target), f"{first:g}", f"{max(first, self.limit * _SHARE / 3):g}"]
        said = self._mpi.start(nodes, argv)
        if said.status != 0:
            self._blame(nodes, argv)
        return said

    def _share(self, nodes: Sequence[Node]) -> Path | None:
        """Where to put the program in a share in which every node sees the head's file."""
        wanted = {node.name for node in nodes}
        for path, mark in self.scratch.marks.items():
            fine = {
                entry.node.name
                for entry in self.surveyed
                for finding in entry.findings
                if finding.name == f"file on {path}" and finding.ok
            }
            if wanted <= fine:
                return Path(mark).with_name("program")
        return None

    def _judge(self, said: Said, nodes: Sequence[Node], boards: dict[str, str | None]) -> None:
        self._add(*program.judge(said, nodes))
        self.result.pairs = program.measured(said, nodes)
        if len(nodes) > 1:
            self._add(program.slowest(self.result.pairs, boards))
