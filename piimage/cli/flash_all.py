"""`piimage flash --all`: a stack of cards, one node after another, until each has its card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.cli.flash_shown import print_event
from piimage.errors import DeviceRefusedError, ExitCode, PiimageError, UnansweredError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from piimage.cli.flash_target import Consent
    from piimage.cluster import Cluster, Node
    from piimage.flash.candidates import Candidate
    from piimage.flash.sources import Source, Sources
    from piimage.flash.writer import Mode
    from piimage.progress import Progress
    from piimage.state.cards import CardRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """How the cards of a stack are written: from the build in `dist`, with what the user agreed to beforehand."""

    cluster: Cluster
    dist: Path
    sources: Sources
    consent: Consent
    mode: Mode
    progress: Progress
    json_output: bool
    let_go: bool = False

    def write(
        self, nodes: Sequence[Node], reader: Path | None, known: Sequence[CardRecord]
    ) -> None:
        """Write a card for each of `nodes`, from `reader` alone if one is given, as the cards come in.

        `known` are the cards that there were before, as `waiting` tells them. A card that is refused, not agreed to
        or bad is left, and the next one is waited for. Raises `PiimageError` where no other card would help: no build
        of a node, no privilege, nobody who answers.
        """
        from piimage.flash.arrival import Arrivals  # noqa: PLC0415 -- start-up time

        accepted = frozenset(self.consent.allow)
        arrivals = Arrivals(accepted=accepted, serial=self.consent.serial, only=reader)
        for place, node in enumerate(nodes):
            source = self.sources.of_node(self.dist, node.name)
            words = f"{node.name} comes next, {len(nodes) - place} to go: put its card in"
            self._say("next", words, node=node.name, left=len(nodes) - place)
            while not self._one(arrivals.next(self._refused), source):
                self._say("next", f"put another card in for {node.name}", node=node.name)
            self._say("label", f"take it out, and write `{node.name}` on it", node=node.name)
        self._say("end", f"every node of `{self.cluster.name}` that was asked for has its card")
        # Each card that was written is in the state now, and what it was before is not.
        old = outdated(self.cluster, self.dist, _recorded(self.cluster) if nodes else known)
        if old:
            words = f"{', '.join(old)}: card{'s' * (len(old) > 1)} of an older build; to write anew: `{_again(old)}`"
            self._say("outdated", words, nodes=old)

    def _one(self, found: Candidate, source: Source) -> bool:
        """Whether the card became the node."""
        from piimage.cli.flash_target import admitted, confirm, release  # noqa: PLC0415 -- start-up time
        from piimage.cli.flash_write import write  # noqa: PLC0415 -- start-up time
        from piimage.flash.several import Job  # noqa: PLC0415 -- start-up time

        if found.label:
            label = found.label
            self._say("holds", f"this card is {label.node} of {label.cluster}", holds=label.node)
        try:
            examined = admitted(found.examined.device.path, source, self.consent)
            jobs = [(examined, source)]
            confirm(jobs, self.consent, self.mode)
            if self.consent.unmount:
                release(jobs, self.consent)
        except UnansweredError:
            raise
        except DeviceRefusedError as error:
            self._trouble(error)
            return False
        device = examined.device
        ready = [Job(device, self.sources.fitted(source, device.size))]
        failed = write(
            ready,
            self.mode,
            self.progress,
            self.cluster,
            json_output=self.json_output,
            let_go=self.let_go,
        )
        if failed is None:
            return True
        if failed.exit_code is ExitCode.MISSING_TOOL:
            raise failed
        self._trouble(failed)
        return False

    def _refused(self, found: Candidate) -> None:
        reasons = "; ".join(f"{r.name}: {r.reason}" for r in found.examined.refusals)
        path = str(found.examined.device.path)
        self._say("refused", f"`{path}` came, and is refused: {reasons}", card=path)

    def _trouble(self, error: PiimageError) -> None:
        words = error.message + (f"\n  {error.hint}" if error.hint else "")
        if self.json_output:
            self._say("trouble", words, exit_code=int(error.exit_code))
        else:
            self.progress.warn(words)

    def _say(self, event: str, words: str, **facts: object) -> None:
        if self.json_output:
            print_event({"event": event, **facts, "message": words})
        else:
            self.progress.say(words)


def _again(names: Sequence[str]) -> str:
    from piimage.host import as_root  # noqa: PLC0415 -- start-up time

    return " ".join((f"{as_root()} flash --all", *(f"--node {name}" for name in names)))


def waiting(cluster: Cluster, names: Sequence[str]) -> tuple[list[Node], tuple[CardRecord, ...]]:
    """The nodes that were named, else those of the cluster that have no card yet; and the cards that there are."""
    from piimage.cli.loading import chosen  # noqa: PLC0415 -- start-up time

    known = _recorded(cluster)
    if names:
        return chosen(cluster, names), known
    done = {record.node for record in known}
    return [node for node in cluster.nodes if node.name not in done], known


def outdated(cluster: Cluster, dist: Path, known: Sequence[CardRecord]) -> list[str]:
    """Names of nodes, in the cluster's order, whose card is of another build than the one in `dist`."""
    from piimage import manifest  # noqa: PLC0415 -- start-up time
    from piimage.flash.card import newest  # noqa: PLC0415 -- start-up time

    built = manifest.read(dist, cluster)
    old = {
        record.node
        for record in known
        if (there := newest(built, record.node)) and record.build not in there
    }
    return [node.name for node in cluster.nodes if node.name in old]


def _recorded(cluster: Cluster) -> tuple[CardRecord, ...]:
    from piimage.state.state import location, open_state  # noqa: PLC0415 -- start-up time

    there = location(cluster.source).exists()
    return open_state(cluster, create=False).cards() if there else ()
