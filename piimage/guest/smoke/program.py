"""What the C program said about ranks, messages and speed, against the roster."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .boards import usual
from .findings import Finding, equal, note
from .launch import lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .reach import Said
    from .roster import Node

#: What it checks of messages between all ranks, in its order.
COLLECTIVES = ("allreduce", "broadcast", "all-to-all", "ring")
_SHOWN = 6


def judge(said: Said, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Findings about a run on `nodes`, in the order in which things become possible."""
    told = lines(said.out)
    ranks = [line for line in told if "rank" in line]
    yield from _placed(ranks, nodes)
    silent = [line["silent"] for line in told if "silent" in line]
    pairs = ", ".join(f"{one} and {other}" for one, other in silent[:_SHOWN])
    words = f"these nodes do not hear each other over MPI: {pairs}"
    reached = any(line.get("phase") in COLLECTIVES for line in told)
    if reached or silent:
        yield Finding("every pair of nodes", not silent, "all answer", pairs or "all answer", words)
    place = {line["rank"]: line["node"] for line in ranks}
    for name in COLLECTIVES:
        for line in told:
            if line.get("check") == name:
                yield _collective(line, place)
    yield _end(said, told, nodes)


def _placed(ranks: Sequence[Mapping[str, Any]], nodes: Sequence[Node]) -> Iterator[Finding]:
    """As many ranks as slots, on every node and in all."""
    expected = sum(node.slots for node in nodes)
    size = ranks[0]["size"] if ranks else None
    words = f"MPI started {size or 'no'} ranks, expected {expected}"
    yield equal("ranks", expected, size, words)
    if not ranks:
        return
    counted = Counter(line["node"].partition(".")[0] for line in ranks if line["node"])
    mute = [str(line["rank"]) for line in ranks if not line["node"]]
    want = {node.name: node.slots for node in nodes}
    found = ", ".join(f"{name} {counted[name]}" for name in sorted(counted))
    shown = ", ".join(f"{name} {count}" for name, count in sorted(want.items()))
    words = f"ranks by processor name: {found}, expected {shown}"
    if mute:
        words += f"; no word from rank {', '.join(mute)}"
    yield Finding("ranks per node", dict(counted) == want, shown, found, words)


def _collective(line: Mapping[str, Any], place: Mapping[int, str]) -> Finding:
    where = ", ".join(dict.fromkeys(place.get(rank, str(rank)) for rank in line["wrong"]))
    words = f"{line['check']} gave a wrong result on {where}"
    found = f"wrong on {where}" if where else str(line["found"])
    return Finding(line["check"], not where, str(line["expected"]), found, words)


def _end(said: Said, told: Sequence[Mapping[str, Any]], nodes: Sequence[Node]) -> Finding:
    """Whether it came to its end; else where it stood."""
    phases = [line["phase"] for line in told if "phase" in line]
    ended = said.status == 0 and phases[-1:] == ["end"]
    names = ", ".join(node.name for node in nodes)
    at = f"in `{phases[-1]}`" if phases else "while it started"
    words = f"the MPI program on {names} ended {at}: {said.why}"
    if said.status is None:
        words = f"the MPI program on {names} hung {at}: {said.why}"
    return Finding("end of the program", ended, "end", phases[-1] if phases else None, words)


def measured(said: Said, nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """The pairs with their latency and bandwidth, in the order of the nodes."""
    place = {node.name: number for number, node in enumerate(nodes)}
    found = [line for line in lines(said.out) if "latency_us" in line]
    return sorted(found, key=lambda line: (place.get(line["from"], 0), place.get(line["to"], 0)))


def slowest(pairs: Sequence[Mapping[str, Any]], boards: Mapping[str, str | None]) -> Finding:
    """A note about the pair with the least bandwidth; `boards` maps nodes to their models."""
    if not pairs:
        return note("slowest pair", None)
    pair = min(pairs, key=lambda line: float(line["bandwidth_mib_s"]))
    known = [usual(boards.get(pair[end])) for end in ("from", "to")]
    least = min((board.bandwidth for board in known if board), default=None)
    expected = f"{least} MiB/s and more is usual" if least and all(known) else None
    found = f"{pair['from']}-{pair['to']} {pair['bandwidth_mib_s']:.1f} MiB/s"
    return note("slowest pair", found, expected)
