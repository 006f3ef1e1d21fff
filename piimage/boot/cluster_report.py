"""The record of a cluster's rehearsal: its nodes' records, what only the whole can show, the smoke test's report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from piimage.boot.report import NOT_REHEARSED, Rehearsal
from piimage.disk.atomic import write_bytes
from piimage.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.boot.checks import Finding

VERSION = 1
REPORT = "cluster.json"
_NOT_REHEARSED = (*NOT_REHEARSED, "the Ethernet switch and its cables: a program plays them")


@dataclass(slots=True, kw_only=True)
class ClusterRehearsal:
    """A rehearsal of several nodes. `timings` are seconds, `memory` MiB of each node, `started` epoch seconds.

    `nodes` stand in the cluster's order, `order` is that of their start; `one_by_one` means that each waited for
    the one before. `additions` say in words what was done that no card does. `findings` are the whole's own;
    `killed` is the node whose power was cut.
    """

    cluster: str
    accel: str
    nodes: dict[str, Rehearsal]
    order: tuple[str, ...]
    one_by_one: bool
    memory: int
    started: int
    additions: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    smoke: dict[str, Any] | None = None
    killed: str | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every node, the whole and the smoke test kept all promises."""
        return not list(self.problems())

    def problems(self) -> Iterator[str]:
        """What went wrong, in words, the gravest first; a node's console lines follow its line."""
        if self.error is not None:
            yield self.error
        for name, node in self.nodes.items():
            if node.error is not None:
                yield f"{name}: {node.error}"
        for name, node in self.nodes.items():
            for found in node.failed:
                yield f"{name}: {found.name}: expected {found.expected}; found {found.found}"
        for found in self.findings:
            if found.ok is False:
                yield f"{found.name}: expected {found.expected}; found {found.found}"
        if self.smoke is not None and not self.smoke["ok"]:
            failures = self.smoke.get("failures") or ["it failed, and does not say why"]
            yield from (f"smoke test: {words}" for words in failures)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without anything secret; a node's own report lies beside its console."""
        return {
            "version": VERSION,
            "ok": self.ok,
            **{name: getattr(self, name) for name in ("cluster", "accel", "memory", "started")},
            "order": list(self.order),
            "one_by_one": self.one_by_one,
            "nodes": [self._node(name, node) for name, node in self.nodes.items()],
            "additions": self._additions(),
            "not_rehearsed": list(_NOT_REHEARSED),
            "timings": self.timings,
            "findings": [asdict(found) for found in self.findings],
            "smoke": self.smoke,
            "killed": self.killed,
            "error": self.error,
            "problems": list(self.problems()),
        }

    def _additions(self) -> list[str]:
        tokens = dict.fromkeys(token for node in self.nodes.values() for token in node.additions)
        said = f"on each card's command line: {' '.join(tokens)}"
        return [*([said] if tokens else []), *self.additions]

    @staticmethod
    def _node(name: str, node: Rehearsal) -> dict[str, Any]:
        return {
            "name": name,
            "ok": node.ok,
            "build": node.build,
            "timings": node.timings,
            "checks": len(node.findings),
            "failed": [asdict(found) for found in node.failed],
            "error": node.error,
            "console": str(node.console),
        }

    def write(self, path: Path) -> None:
        """Write the report whole or not at all."""
        write_bytes(path, json.dumps(self.to_json(), indent=1).encode() + b"\n", mode=0o600)

    def check(self, place: Path) -> None:
        """Raise a `RehearsalError` that names every problem; `place` is where the reports lie."""
        found = list(self.problems())
        if not found:
            return
        # One console is worth showing; the others are where the hint says.
        shown = [found[0], *(words.partition("\n")[0] for words in found[1:])]
        lines = "".join(f"\n    {words}" for words in shown)
        raise RehearsalError(
            f"the rehearsal of `{self.cluster}` found {len(found)} problem{'s' * (len(found) > 1)}{lines}",
            hint=f"consoles and reports of all nodes are in {place}",
        )
