"""All nodes asked at once: what they say, or why they say nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .dialogue import Dialogue, Silent
from .findings import Finding
from .judge import CLOCK, judge, kept_by_chrony
from .reach import everywhere

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .roster import Node, Roster
    from .scratch import Scratch

_PAUSE = 5.0


@dataclass(frozen=True)
class Answer:
    """A node's facts and its clock, or why there are none."""

    facts: dict[str, Any] | None
    clock: tuple[float, float] = (0.0, 0.0)
    why: str = ""


@dataclass(frozen=True)
class Surveyed:
    """A node, what it answered, and what that is worth."""

    node: Node
    answer: Answer
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(finding.ok is not False for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The node as the report has it."""
        return {
            "name": self.node.name,
            "address": self.node.address,
            "ok": self.ok,
            "checks": [finding.to_json() for finding in self.findings],
        }


def survey(roster: Roster, scratch: Scratch, limit: float) -> list[Surveyed]:
    """Every node of the roster, in its order."""
    shares = [
        {"path": share.path, "mark": scratch.marks.get(share.path)} for share in roster.shares
    ]

    def ask(node: Node) -> Answer:
        question = {
            "ask": "facts",
            "names": [other.name for other in roster.nodes],
            "address": node.address,
            "shares": shares,
            "mpi": roster.flavour is not None,
        }
        try:
            with Dialogue(node, roster.head, limit) as dialogue:
                clock = dialogue.clock()
                return Answer(dialogue.ask(question), clock)
        except Silent as silence:
            return Answer(None, why=str(silence))

    answers = everywhere(ask, roster.nodes)
    head = answers[roster.head].facts
    return [
        Surveyed(node, answers[node.name], _judged(roster, node, answers[node.name], head, scratch))
        for node in roster.nodes
    ]


def _judged(
    roster: Roster, node: Node, answer: Answer, head: Mapping[str, Any] | None, scratch: Scratch
) -> list[Finding]:
    if answer.facts is None:
        words = f"no answer over ssh ({node.address}): {answer.why}"
        if "Permission denied" in answer.why:  # sshd's StrictModes: it says no more to whoever asks
            words += f"; {roster.user} has another uid there than the home's owner, or not the cluster's key"
        return [Finding("reachable", False, "an answer over ssh", answer.why, words)]
    reachable = Finding("reachable", True, "an answer over ssh", "an answer over ssh")
    found = judge(roster, node, answer.facts, head=head, clock=answer.clock, token=scratch.token)
    for share in roster.shares:
        if node.name == roster.head and share.path not in scratch.marks:
            found.append(Finding(f"file on {share.path}", None, "writable", "not writable"))
    return [reachable, *found]


def counters(roster: Roster, nodes: list[Node], limit: float) -> dict[str, Any]:
    """The byte counters of each node's interfaces; None for a node that does not answer."""

    def ask(node: Node) -> Any:  # noqa: ANN401 -- JSON
        try:
            with Dialogue(node, roster.head, limit) as dialogue:
                return dialogue.ask({"ask": "counters", "address": node.address})
        except Silent:
            return None

    return everywhere(ask, nodes)


def wait(roster: Roster, seconds: float, limit: float) -> None:
    """Until every node answers and agrees about the time, or the seconds are over.

    A clock that chrony has yet to set may be right for now by chance, and within the error of a slow answer.
    """
    deadline = time.monotonic() + seconds
    missing = list(roster.nodes)

    def ask(node: Node) -> bool:
        try:
            with Dialogue(node, roster.head, min(limit, max(deadline - time.monotonic(), 1))) as it:
                ahead, _ = it.clock()
                settled = kept_by_chrony(it.ask({"ask": "tracking"})) != "not synchronised"
                return abs(ahead) <= CLOCK and settled
        except Silent:
            return False

    while missing:
        there = everywhere(ask, missing)
        missing = [node for node in missing if not there[node.name]]
        if not missing or time.monotonic() + _PAUSE >= deadline:
            return
        time.sleep(_PAUSE)
