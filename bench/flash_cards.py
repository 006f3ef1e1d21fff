"""What several cards cost: `piimage flash` from one variant in frames and its stamps.

    sudo .venv/bin/python bench/flash_cards.py [--image FILE] [--runs N]

Four cards of 20 MiB/s against one, then four of which one has a quarter of that: how long the slowest of the others
takes against one alone; the slow one itself is not waited for (`bench/targets.py`: nbdkit, libnbd-bin). The image is
the cached default base, or FILE, packed by a build's own code. Medians of the ratios; both sides of a ratio in one run.
Cards are compared with the image.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import SIGNATURE, subject
from targets import MIB, Run, flash, limited

from piimage import artifact
from piimage.disk.slots import Patch
from piimage.stamping import NodeStamp, write_stamp

if TYPE_CHECKING:
    from pathlib import Path

    from images import Subject

RATE = 20
YAML = """\
version: 1
name: bench
base: debian-13
users:
  - {name: ada, uid: 1000, rename_from: auto}
network:
  wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}
nodes: {count: 4, name: "node{n}", head: 0}
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster whose nodes are the image, each with another disk signature."""

    source: Path
    subject: Subject

    def write(self, cards: dict[int, Path], done: int | None = None) -> Run:
        """Write the cards; killed once so many are `done`."""
        nodes = [word for n, device in cards.items() for word in ("--node", f"{n}={device}")]
        return flash("--cluster", self.source, *nodes, cards=done)


def main() -> None:
    found: dict[str, list[float]] = defaultdict(list)
    with subject(runs=(3, "how often")) as it:
        print(it.words, flush=True)
        cluster = make(it)
        for number in range(it.options.runs):
            for what, value in several(it.home / f"several{number}", cluster).items():
                found[what].append(value)
                print(f"  {what:44} {value:8.2f}", flush=True)
    for what, values in found.items():
        print(f"{what:46} {statistics.median(values):8.2f}")


def make(it: Subject) -> Cluster:
    home = it.home
    (home / "cluster.yaml").write_text(YAML)
    dist = home / "dist" / "bench"
    stamps = dist / "stamps"
    stamps.mkdir(parents=True)
    made = artifact.publish(it.image, dist / "variants", "worker", fmt="img.zst")
    nodes = {}
    for number in range(4):
        stamp = NodeStamp(
            f"node{number}", "v", f"b{number}", (Patch(SIGNATURE, signature(number)),)
        )
        write_stamp(stamps / f"{stamp.node}.stamp", stamp)
        nodes[stamp.node] = {"stamp": stamp.build, "variant": "v"}
    known = {"id": "v", "image": f"variants/{made.image.name}", "sha256": made.sha256}
    manifest = {"version": 1, "cluster": "bench", "variants": {"worker": known}, "nodes": nodes}
    artifact.write_manifest(dist, manifest)
    return Cluster(home / "cluster.yaml", it)


def signature(number: int) -> bytes:
    return bytes([number] * 4)


def several(home: Path, cluster: Cluster) -> dict[str, float]:
    """One card, four alike, and four with a slow one."""
    home.mkdir()
    it, size = cluster.subject, cluster.subject.payload.size
    with ExitStack() as stack:
        cards = {n: stack.enter_context(limited(home / f"{n}", size, RATE)) for n in range(4)}
        alone = cluster.write({0: cards[0]})
        four = cluster.write(cards)
        for n in cards:
            it.check(home / f"{n}", signature(n))
    (home / "slow").mkdir()
    with ExitStack() as stack:
        rates = [RATE, RATE, RATE, RATE / 4]
        cards = {
            n: stack.enter_context(limited(home / "slow" / f"{n}", size, rate))
            for n, rate in enumerate(rates)
        }
        slow = cluster.write(cards, done=3)
        for n in range(3):
            it.check(home / "slow" / f"{n}", signature(n))
    peers = max(slow.cards[str(cards[n])] for n in range(3))
    return {
        "one card, seconds": alone.seconds,
        "four cards / one": four.seconds / alone.seconds,
        "slowest peer of a slow card / one": peers / alone.cards[str(next(iter(alone.cards)))],
        "memory of one card, MiB": alone.memory / MIB,
        "memory of four cards, MiB": four.memory / MIB,
        "memory of four cards, one slow, MiB": slow.memory / MIB,
    }


if __name__ == "__main__":
    main()
