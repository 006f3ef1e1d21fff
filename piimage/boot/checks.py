"""What must be true of a running node: its facts against cluster.yaml. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piimage.cluster import Sudo
from piimage.components.identity import hosts_text
from piimage.components.trust import holds_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from piimage.boot.wiring import Wire
    from piimage.cluster import Cluster, Node, User
    from piimage.components.contribution import Check

    Facts = Mapping[str, Any]

#: What a partition table leaves at the end of a disk, and what ext4 keeps of a partition for itself.
_TABLE_END = 1 << 20
_EXT4_SHARE = 0.9
#: Seconds that a node's clock may be off while nobody sets it: emulated time drifts, an hour is a wrong zone.
_CLOCK = 300
_MULTICAST = "ff00::/8"
_GRAVE = ("ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise: `ok` None means that it could not be asked; `expected` and `found` are for people."""

    name: str
    ok: bool | None
    expected: str
    found: str


def judge(
    facts: Facts,
    cluster: Cluster,
    node: Node,
    *,
    wire: Wire,
    baked_machine_id: str,
    asked: Sequence[Check],
) -> tuple[Finding, ...]:
    """Every finding about a node, in the order of the recipe; `asked` are the plan's own checks."""
    return (
        *_identity(facts, cluster, node, baked_machine_id),
        *(f for user in cluster.users for f in _user(facts, user)),
        *_passwords(facts, cluster),
        *_login(facts, cluster),
        *_network(facts, cluster, node, wire),
        *_time(facts, cluster, node),
        *_system(facts, node),
        *_secrets(facts, cluster, node),
        *_asked(facts, asked),
    )


def _equal(name: str, expected: object, found: object) -> Finding:
    return Finding(name, expected == found, _words(expected), _words(found))


def _words(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "no answer" if value is None else str(value)


def _identity(facts: Facts, cluster: Cluster, node: Node, baked: str) -> Iterator[Finding]:
    yield _cloud_init(facts["cloud_init"])
    host = facts["host"]
    full = f"{node.name}.{cluster.domain}" if cluster.domain else node.name
    yield _equal("host name", node.name, host["name"])
    yield _equal("qualified host name", full, host["fqdn"])
    digest = hashlib.sha256(hosts_text(cluster).encode()).hexdigest()
    yield _equal("/etc/hosts", digest, host["hosts_sha256"])
    machine_id = host["machine_id"]
    own = re.fullmatch(r"[0-9a-f]{32}", machine_id) is not None and machine_id != baked
    yield Finding("machine id", own, "32 hex digits made at first boot", machine_id or "none")
    yield _equal("locale", cluster.locale, host["locale"])


def _cloud_init(report: Facts) -> Finding:
    """Done, without errors; warnings are named and do not fail."""
    recoverable: Mapping[str, Sequence[str]] = report.get("recoverable_errors") or {}
    errors = [
        *report.get("errors", ()),
        *(e for level in _GRAVE for e in recoverable.get(level, ())),
    ]
    notes = [f"{level.lower()}: {e}" for level, lines in recoverable.items() for e in lines]
    status = str(report.get("status", "no answer"))
    found = "; ".join([status, *report.get("errors", ()), *notes])
    return Finding("cloud-init", status == "done" and not errors, "done without errors", found)


def _user(facts: Facts, user: User) -> Iterator[Finding]:
    found = facts["users"].get(user.name)
    if found is None:
        yield Finding(f"user {user.name}", False, f"uid {user.uid}", "no such user")
        return
    expected = f"uid {user.uid}, gid {user.gid} ({user.group}), {user.home}, {user.shell}"
    is_so = "uid {uid}, gid {gid} ({group}), {home}, {shell}".format(**found)
    yield _equal(f"user {user.name}", expected, is_so)
    yield _equal(f"home of {user.name}", [user.uid, user.gid], found["home_owner"])
    wanted = user.sudo is Sudo.NOPASSWD
    said = {True: "root without a password", False: "not root without a password"}
    if facts["root"] is None:
        if facts["login"] == user.name:
            yield _equal(f"sudo of {user.name}", said[wanted], said[False])
        else:
            yield _unasked(f"sudo of {user.name}", said[wanted])
        return
    may = facts["root"]["sudo"].get(user.name)
    yield Finding(f"sudo of {user.name}", may is wanted, said[wanted], said.get(may, "no answer"))


def _unasked(name: str, expected: str) -> Finding:
    return Finding(name, None, expected, "not asked: the first user has no passwordless sudo")


def _passwords(facts: Facts, cluster: Cluster) -> Iterator[Finding]:
    wanted = {user.name: user.password for user in cluster.users} | {"root": cluster.root_password}
    for name, reference in wanted.items():
        state = "locked" if reference is None else "set"
        if facts["root"] is None:
            yield _unasked(f"password of {name}", state)
        else:
            yield _equal(f"password of {name}", state, facts["root"]["passwords"].get(name))


def _login(facts: Facts, cluster: Cluster) -> Iterator[Finding]:
    """That there are facts at all is the proof: ssh accepts nothing but a certificate of the CA."""
    certificate = facts["host_certificate"] or ""
    key = re.search(r"Public key: *(.*)", certificate)
    expected = f"key login as {cluster.users[0].name}, host certificate of the cluster's CA"
    found = f"login as {facts['login']}, {key[1] if key else 'certificate not shown'}"
    yield Finding("ssh", facts["login"] == cluster.users[0].name, expected, found)


def _network(facts: Facts, cluster: Cluster, node: Node, wire: Wire) -> Iterator[Finding]:
    wired = _interface(facts, wire.mac)
    if wired is None:
        yield Finding("wired address", False, str(node.address), f"no interface has {wire.mac}")
        return
    name = wired["ifname"]
    yield _equal("wired address", [str(node.address)], _addresses(wired, "inet"))
    outside = [a for a in _addresses(wired, "inet6") if not a.startswith("fe80:")]
    yield _equal("wired IPv6", [], outside)
    main = [r for r in facts["routes"] if r.get("dev") == name and r.get("table", "main") == "main"]
    lines = [f"{r['dst']} via {r['gateway']}" if "gateway" in r else r["dst"] for r in main]
    v4 = [line for line in lines if ":" not in line]
    expected = [
        str(cluster.subnet),
        *([f"default via {cluster.gateway}"] if cluster.gateway else []),
    ]
    yield _equal("routes on the wire", sorted(expected), sorted(v4))
    default6 = [str(r.get("gateway")) for r in facts["routes6"] if r.get("dev") == name]
    yield _equal("IPv6 default route on the wire", [], default6)
    yield _untouched(facts, wire)


def _untouched(facts: Facts, wire: Wire) -> Finding:
    """NIC 2 offers DHCP and router advertisements: whoever takes them has matched too much.

    NetworkManager switches every port on to see its cable; the kernel's route for multicast comes with that.
    """
    other = _interface(facts, wire.other_mac)
    managed = facts["networkmanager"]
    expected = "without an address or a route" if managed else "down, without an address or a route"
    if other is None:
        return Finding("second NIC", False, expected, f"no interface has {wire.other_mac}")
    signs = ["up"] if "UP" in other.get("flags", ()) and not managed else []
    signs += _addresses(other, "inet") + _addresses(other, "inet6")
    routes = [r["dst"] for r in facts["routes"] if r.get("dev") == other["ifname"]]
    signs += [f"route {to}" for to in routes if not (managed and to == _MULTICAST)]
    return Finding("second NIC", not signs, expected, ", ".join(signs) or expected)


def _interface(facts: Facts, mac: str) -> Mapping[str, Any] | None:
    for link in facts["addresses"]:
        if str(link.get("address", "")).lower() == mac.lower():
            found: Mapping[str, Any] = link
            return found
    return None


def _addresses(link: Mapping[str, Any], family: str) -> list[str]:
    return [
        f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", ()) if a["family"] == family
    ]


def _time(facts: Facts, cluster: Cluster, node: Node) -> Iterator[Finding]:
    clock = facts["clock"]
    zone = str(clock["zone"] or "").partition("zoneinfo/")[2]
    yield _equal("time zone", cluster.timezone, zone)
    first, last = facts["asked"]
    off = max(first - clock["now"], clock["now"] - last, 0)
    yield Finding("clock", off < _CLOCK, f"within {_CLOCK} s of this machine's", f"{off:.0f} s off")
    running = clock["tracking"] is not None
    yield Finding("chrony answers", running, "yes", "yes" if running else "no")
    if node.role.head:
        yield _equal("serves time", True, clock["serves"])
    else:
        head = str(cluster.head.address.ip)
        yield Finding("time source", head in clock["sources"], head, _words(clock["sources"]))


def _system(facts: Facts, node: Node) -> Iterator[Finding]:
    system = facts["system"]
    yield _equal("target", f"{node.role.target}.target", system["target"])
    yield _equal("failed units", [], system["failed"])
    yield _equal("system state", "running", system["state"])
    yield _grown(facts["filesystem"])
    tokens = [*node.role.cmdline, *node.cmdline]
    missing = [t for t in tokens if t not in facts["host"]["cmdline"].split()]
    if tokens:
        yield _equal("kernel tokens that are missing", [], missing)
    if facts["root"] is None:
        yield _unasked("padding of stamped files", "none")
    else:
        yield _equal("padding of stamped files", [], facts["root"]["padded"])


def _grown(found: Mapping[str, Any] | None) -> Finding:
    """The card is larger than the image, and the root file system has all of it."""
    name = "root file system grown"
    if found is None:
        return Finding(name, False, "the whole disk", "no answer")
    to_end = found["disk"] - found["partition_end"] <= _TABLE_END
    filled = found["size"] >= _EXT4_SHARE * found["partition"]
    mib = {k: f"{found[k] >> 20} MiB" for k in ("size", "partition", "partition_end", "disk")}
    said = f"partition ends at {mib['partition_end']} of {mib['disk']}, "
    said += f"file system has {mib['size']} of {mib['partition']}"
    return Finding(name, to_end and filled, "partition and file system fill the disk", said)


def _secrets(facts: Facts, cluster: Cluster, node: Node) -> Iterator[Finding]:
    secrets = facts["secrets"]
    if secrets is None or secrets["nobody"] is None:
        yield _unasked("secrets", "no ordinary user can read one")
        return
    looked = secrets["looked_for"]
    wanted = [
        "private host key",
        *(["private cluster key"] if holds_key(cluster, node.role) else []),
    ]
    sought = all(label in looked for label in wanted)
    yield Finding("secrets looked for", sought, _words(wanted), _words(looked))
    for who in ("nobody", "login"):
        open_ = secrets[who]["readable"]
        leaks = [f"{leak['what']} in {leak['path']}" for leak in secrets[who]["found"]]
        whose = facts["login"] if who == "login" else who
        yield _equal(f"private files that {whose} can read", [], open_)
        yield _equal(f"secrets that {whose} can read", [], leaks)


def _asked(facts: Facts, asked: Sequence[Check]) -> Iterator[Finding]:
    """A check holds when its program ended well and a line of its output matches."""
    answers = {answer["name"]: answer for answer in facts["checks"]}
    for check in asked:
        answer = answers.get(check.name)
        expected = f"`{' '.join(check.argv)}` says `{check.expect}`"
        if answer is None:
            left = check.needs_cluster
            said = "not asked: needs the other nodes" if left else "no answer"
            yield Finding(f"plan: {check.name}", None if left else False, expected, said)
            continue
        matched = re.search(check.expect, answer["stdout"], re.MULTILINE) is not None
        words = (answer["stdout"].strip() or answer["stderr"].strip())[:400]
        found = words if answer["status"] == 0 else f"status {answer['status']}: {words}"
        yield Finding(f"plan: {check.name}", matched and answer["status"] == 0, expected, found)
