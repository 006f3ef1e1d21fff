"""What the desk that a cluster is planned at has already: its user, keys, networks and time zone.

Everything is read from files and nothing is started, so that `piimage init` answers at once. What cannot be found
out is left out: these are proposals, not facts that a build rests on.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from piimage.spec.checks.accounts import RESERVED
from piimage.spec.fields import USERNAME, ssh_key_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

#: The public keys that ssh offers by itself, best first (ssh_config(5), IdentityFile).
KEYS = ("id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa")
#: All IPv4 routing tables, also those of VPNs, with every address (Linux, net/ipv4/fib_trie.c).
_ROUTES = Path("/proc/net/fib_trie")
_LOCALTIME = Path("/etc/localtime")
_ZONES = Path("/usr/share/zoneinfo")
#: Networks larger than this are ways to everywhere (a VPN's 0.0.0.0/1), not places where somebody is.
_A_PLACE = 8
#: That of the sample, then others of RFC 1918 which routers, containers and VPNs seldom take by themselves.
_CANDIDATES = (
    *(f"10.{second}.10.0/24" for second in range(1, 100)),
    *(f"192.168.{third}.0/24" for third in range(50, 100)),
    *(f"172.{second}.10.0/24" for second in range(28, 32)),
)


def networks() -> tuple[IPv4Network, ...]:
    """Every IPv4 network that this machine has an address in or a route to; none where there is no such table."""
    try:
        text = _ROUTES.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ()
    found: dict[IPv4Network, None] = {}
    address = ""
    for line in text.splitlines():
        leaf = re.fullmatch(r"\s*\|-- ([0-9.]+)", line)
        if leaf:
            address = leaf[1]
        prefix = re.match(r"\s+/([0-9]+) ", line)
        if prefix and address and int(prefix[1]) >= _A_PLACE:
            network = IPv4Network(f"{address}/{prefix[1]}", strict=False)
            if not network.is_loopback:
                found[network] = None
    return tuple(found)


def collision(subnet: IPv4Network, taken: Collection[IPv4Network]) -> IPv4Network | None:
    """The largest network of this machine that `subnet` overlaps, or None."""
    hits = [network for network in taken if network.overlaps(subnet)]
    return min(hits, key=lambda network: network.prefixlen, default=None)


def free_subnet(taken: Collection[IPv4Network]) -> IPv4Network | None:
    """The first of our candidates that overlaps nothing of this machine; None if there is none."""
    candidates = map(IPv4Network, _CANDIDATES)
    return next((one for one in candidates if collision(one, taken) is None), None)


def ssh_keys(home: Path) -> tuple[Path, ...]:
    """The user's public key files, those that ssh prefers first; damaged and unreadable ones are left out."""
    named = (home / ".ssh" / f"{name}.pub" for name in KEYS)
    others = sorted((home / ".ssh").glob("*.pub")) if (home / ".ssh").is_dir() else []
    return tuple(path for path in dict.fromkeys(chain(named, others)) if _is_key(path))


def _is_key(path: Path) -> bool:
    if path.name.endswith("-cert.pub"):
        return False
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    try:
        return [bool(ssh_key_line(line)) for line in lines if line.strip()] != []
    except PydanticCustomError:
        return False


def user_name(env: Mapping[str, str]) -> str:
    """Who asks, if the nodes can have a user of that name; else `pi`."""
    for variable in ("SUDO_USER", "LOGNAME", "USER"):
        name = env.get(variable, "")
        if re.fullmatch(USERNAME, name) and name not in RESERVED:
            return name
    return "pi"


def timezone() -> str:
    """The time zone of this machine (tzfile(5): a link into the zoneinfo directory), else `Etc/UTC`."""
    try:
        target = str(_LOCALTIME.readlink())
    except OSError:
        return "Etc/UTC"
    _, found, name = target.partition("zoneinfo/")
    return name.removeprefix("posix/") if found else "Etc/UTC"


def country(zone: str) -> str | None:
    """The country that a time zone lies in, by tzdata's zone.tab: an ISO 3166 code; None where it says nothing."""
    try:
        lines = (_ZONES / "zone.tab").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((code for code, name in _rows(lines) if name == zone), None)


def _rows(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Country and zone of each row of zone.tab."""
    for line in lines:
        cells = line.split("\t")
        if not line.startswith("#") and len(cells) > 2:  # noqa: PLR2004 -- code, place, zone
            yield cells[0], cells[2]
