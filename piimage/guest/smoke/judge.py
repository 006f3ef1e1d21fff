"""What a node said against the roster, and against what the head said."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from .boards import usual
from .findings import Finding, equal, note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .roster import Node, Roster, Share

    Facts = Mapping[str, Any]

#: Seconds that two clocks may be apart: what TLS, make and NFS put up with.
CLOCK = 0.5
#: Column of `chronyc -c tracking` that says how well the clock is kept.
_LEAP = 13
_HOT = 80.0
_MIB = 1 << 20


def judge(
    roster: Roster,
    node: Node,
    facts: Facts,
    *,
    head: Facts | None,
    clock: tuple[float, float],
    token: str,
) -> list[Finding]:
    """All findings about a node that answered.

    `clock` is how far ahead it is, and the error of that; `token` what the head's marks hold.
    """
    return [
        equal("host name", node.name, facts["name"]),
        _user(roster, facts),
        *_alike(roster, facts, head),
        *_names(roster, node, facts),
        *_network(roster, node, facts),
        *(found for share in roster.shares for found in _share(node, share, facts)),
        *_marks(roster, facts, token),
        *([] if node.name == roster.head else [_clock(roster, facts, clock)]),
        *(_mpi(roster, facts, head) if roster.flavour else []),
        *_notes(facts),
    ]


def _user(roster: Roster, facts: Facts) -> Finding:
    expected, found = (roster.uid, roster.gid), (facts["uid"], facts["gid"])
    words = (
        f"user {roster.user} has uid {found[0]} and gid {found[1]},"
        f" expected {expected[0]} and {expected[1]}"
    )
    return equal("user", "{} {}".format(*expected), "{} {}".format(*found), words)


def _alike(roster: Roster, facts: Facts, head: Facts | None) -> Iterator[Finding]:
    if head is None:
        return
    yield equal("architecture", head["architecture"], facts["architecture"])
    if roster.flavour:
        yield equal("release", head["release"], facts["release"])
    words = f"/etc/hosts differs from that of {roster.head}"
    yield equal("hosts file", head["hosts"][:12], facts["hosts"][:12], words)


def _names(roster: Roster, node: Node, facts: Facts) -> Iterator[Finding]:
    """Own name and all others: a loopback address is what MPI would tell the other nodes."""
    names = facts["names"]
    own = names.get(node.name, [])
    yield equal(
        "own name", node.address, ", ".join(own) or None,
        f"its own name leads to {', '.join(own) or 'nothing'}, expected {node.address}",
    )  # fmt: skip
    wrong = [
        f"`{other.name}` to {', '.join(names.get(other.name, [])) or 'nothing'}"
        f" (expected {other.address})"
        for other in roster.nodes
        if other.name != node.name and names.get(other.name) != [other.address]
    ]
    words = f"names lead to wrong addresses: {', '.join(wrong)}"
    yield Finding("names", not wrong, "all nodes", ", ".join(wrong) or "all nodes", words)


def _network(roster: Roster, node: Node, facts: Facts) -> Iterator[Finding]:
    wired = facts["wired"]
    expected = f"{node.address}/{ip_network(roster.subnet).prefixlen}"
    have = {
        address: name for name, addresses in facts["interfaces"].items() for address in addresses
    }
    shown = ", ".join(f"{name} has {address}" for address, name in have.items() if name != "lo")
    yield Finding(
        "wired address", expected in have, expected, shown or None,
        f"no interface has {expected}: {shown or 'there is no address'}",
    )  # fmt: skip
    routes = ", ".join(facts["default"]) or "none"
    if roster.gateway is None:
        words = f"the default route leads over the wire ({wired}), which ends at the other nodes"
        away = wired is None or wired not in facts["default"]
        yield Finding("default route", away, "not on the wire", routes, words)
    else:
        words = f"no default route leads over the wire ({wired}), where {roster.gateway} is"
        out = wired in facts["default"]
        yield Finding("default route", out, "on the wire", routes, words)


def _share(node: Node, share: Share, facts: Facts) -> Iterator[Finding]:
    """Exported where it is served, mounted from there elsewhere."""
    found = facts["shares"].get(share.path, {})
    if node.name == share.server:
        serving, said = found.get("serving") == "active", "exported"
        if not serving:
            said = f"nfs-server is {found.get('serving') or 'not there'}"
        elif not found.get("exported"):
            said = "nfs-server does not list it"
        words = f"{share.path} is not exported: {said}"
        yield Finding(f"share {share.path}", said == "exported", "exported", said, words)
    else:
        source = found.get("source")
        expected = f"{share.address}:{share.path}"
        if source == expected and not found.get("there"):  # mounted while it was exported
            why = found.get("why") or "no answer"
            words = f"{share.path} is mounted from {share.server}, but cannot be used: {why}"
            yield Finding(f"share {share.path}", False, expected, why, words)
            return
        words = f"{share.path} is not mounted from {share.server}"
        if source is not None:
            words += f", but from {source}"
        elif found.get("why"):
            words += f": {found['why']}"
        yield equal(f"share {share.path}", expected, source, words)


def _marks(roster: Roster, facts: Facts, token: str) -> Iterator[Finding]:
    """The file that the head wrote into each share."""
    expected = f"{roster.uid} {roster.gid}"
    for path, found in facts["shares"].items():
        if found["mark"] is None:
            continue
        if found["mark"] != token:
            words = f"a file that {roster.head} wrote into {path} cannot be read"
            yield Finding(f"file on {path}", False, "readable", "not readable", words)
            continue
        words = (
            f"a file that {roster.user} on {roster.head} wrote into {path} belongs to"
            f" {found['owner']} here, expected {expected}"
        )
        yield equal(f"file on {path}", expected, found["owner"], words)


def kept_by_chrony(tracking: str | None) -> str:
    """How chrony keeps a clock (`normal`, `not synchronised`), from `chronyc -c tracking`; empty if it does not say."""
    return "".join((tracking or "").split(",")[_LEAP : _LEAP + 1]).lower()


def _clock(roster: Roster, facts: Facts, clock: tuple[float, float]) -> Finding:
    """Judged only as far as the time that the question took allows."""
    ahead, error = clock
    ok: bool | None = abs(ahead) <= CLOCK
    if not ok and abs(ahead) - error <= CLOCK:
        ok = None
    direction = "ahead of" if ahead > 0 else "behind"
    found = f"{ahead:+.3f} s (± {error:.3f})"
    kept = kept_by_chrony(facts["chrony"])
    state = f"; chrony: {kept}" if kept else ""
    words = f"its clock is {abs(ahead):.1f} s {direction} that of {roster.head}{state}"
    return Finding("clock", ok, f"within {CLOCK} s of {roster.head}", found + state, words)


def _mpi(roster: Roster, facts: Facts, head: Facts | None) -> Iterator[Finding]:
    mpi = facts["mpi"] or {}
    version = f"{mpi.get('flavour')} {mpi.get('version')}" if mpi.get("flavour") else None
    theirs = (head or facts)["mpi"] or {}
    expected = f"{roster.flavour} {theirs.get('version') or ''}".strip()
    words = f"`mpirun` is {version or 'not there'}, expected {expected}"
    yield equal("MPI version", expected, version, words)
    for name, setting in mpi.get("pins", {}).items():
        value, where = setting or (None, None)
        ok = value is not None and _on_the_wire(roster, facts, value)
        said = f"{where} says {name} = {value}" if value is not None else f"{name} is not set"
        expected = facts["wired"] if name.startswith("UCX") else roster.subnet
        words = f"MPI is not held to the wire: {said}, expected {expected}"
        yield Finding(f"MPI interface ({name})", ok, str(expected), value, words)


def _on_the_wire(roster: Roster, facts: Facts, value: str) -> bool:
    """Whether a setting names the wired subnet, or the wired interface, and nothing else."""
    if value == facts["wired"]:
        return True
    try:
        return ip_network(value, strict=False) == ip_network(roster.subnet)
    except ValueError:
        return False


def _notes(facts: Facts) -> Iterator[Finding]:
    degrees, free = facts["temperature"], facts["free"]
    shown = None if degrees is None else f"{degrees:.1f} °C"
    yield note("temperature", shown, f"below {_HOT:.0f} °C")
    yield note("throttled", facts["throttled"], "0x0")
    yield note("free on /", None if free is None else f"{free // _MIB} MiB")
    speed = facts["speed"] if (facts["speed"] or "").isdigit() else None
    board = usual(facts["board"])
    expected = f"{board.link} Mbit/s ({board.name})" if board else None
    yield note("link", speed and f"{speed} Mbit/s", expected)
