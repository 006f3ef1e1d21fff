"""ifupdown with wpa_supplicant, as Debian's own images for the Raspberry Pi have it.

A node's ports are in one file of ours, a slot, among those that /etc/network/interfaces reads; what the base's
files say of the same ports is taken out of them, since stanzas of one port add up (interfaces(5)). All ports are
`allow-hotplug`: udev starts each when it is there, so no boot waits for one, and one that a board does not have fails
nowhere. Wi-Fi is `wpa-roam`: wpa_supplicant looks for the access point for as long as it takes, and only then
is an address asked for (wpasupplicant, README.Debian). The hashed passphrase is in wpa_supplicant.conf, a slot of
root's alone.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from piimage.components.contribution import Contribution, Stamp
from piimage.components.network_dhcpcd import SUPPLICANT, supplicant_text
from piimage.components.network_names import WIRED, WIRELESS, passphrase
from piimage.components.textfile import rewritten, with_newline
from piimage.delta import Absent, Delta, File, Slot
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

INTERFACES, FOLDER = "/etc/network/interfaces", "/etc/network/interfaces.d"
#: No dot in it: `source-directory` reads no other names (interfaces(5)).
OURS = f"{FOLDER}/piimage"
_RESOLV_CONF = "/etc/resolv.conf"
_SERVICE, _WAIT_ONLINE = "networking.service", "ifupdown-wait-online.service"
_SIZE = 4096
_SOURCE = f"source {FOLDER}/*\n"
_SOURCES = re.compile(
    rf"^[ \t]*source(?:-directory)?[ \t]+(?:{FOLDER}|interfaces\.d)(?:/\*?)?[ \t]*$", re.MULTILINE
)
_KEYWORD = re.compile(
    r"[ \t]*(iface|mapping|auto|allow-\S+|rename|source|source-directory|no-auto-down|no-scripts)[ \t]+(.*)"
)
#: What the kernel would take from any router on the wire before ifupdown has its say. With IPv6 off there is no such
#: file.
_NO_ROUTER = "\tpre-up echo 0 >/proc/sys/net/ipv6/conf/$IFACE/accept_ra || true\n"
#: The port that `wpa-roam` is for, and what is done with it once there is an access point.
_ROAMS = f"""\
allow-hotplug {WIRELESS}
iface {WIRELESS} inet manual
\twpa-roam {SUPPLICANT}
\twpa-roam-default-iface piimage-wifi

iface piimage-wifi inet dhcp
"""
#: One of these asks for an address: ifupdown takes the first of them that is there, in this order.
_CLIENTS = ("isc-dhcp-client", "udhcpc", "dhcpcd5", "dhcpcd-base")
#: One of these keeps /etc/resolv.conf, and takes `dns-nameservers` of a stanza.
_KEEPERS = ("resolvconf", "openresolv", "systemd-resolved")


def lacking(cluster: Cluster, role: Role, facts: Facts) -> tuple[str, ...]:
    """Logical names of what Wi-Fi needs and the base comes without."""
    if cluster.wifi is None or not role.wifi:
        return ()
    client = () if set(_CLIENTS) & set(facts.packages) else ("dhcp-client",)
    return ("wifi-client", *client)


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """Room for both files, and nothing else that speaks of the same ports.

    Raises `UnsupportedError` for a node whose port is named by its MAC: `allow-hotplug` with one starts nothing (seen
    with 0.8.41: ifquery finds the port by name alone). And for Wi-Fi without its programs.
    """
    for node in cluster.nodes:
        if node.role == role and node.mac:
            raise UnsupportedError(
                f"node `{node.name}` names its wired port by `mac`, which the base's ifupdown cannot",
                hint=f"leave `mac` out: the board's own port, {WIRED[0]}, is the wire then",
            )
    wireless = cluster.wifi is not None and role.wifi
    entries = _stock(facts)
    entries[OURS] = Slot(_SIZE, mode=0o644)
    if wireless:
        _check_programs(facts)
        entries[SUPPLICANT] = Slot(_SIZE)
    elif cluster.dns and not set(_KEEPERS) & set(facts.packages):
        text = "".join(f"nameserver {address}\n" for address in cluster.dns)
        entries[_RESOLV_CONF] = File(text.encode())
    waits = facts.units.get(_WAIT_ONLINE)
    return Contribution(
        delta=Delta.of("network", entries),
        enable=(_SERVICE,),
        disable=(_WAIT_ONLINE,) if waits is not None and waits.enabled else (),
    )


def _check_programs(facts: Facts) -> None:
    for names in (("wpasupplicant",), _CLIENTS):
        if not set(names) & set(facts.packages):
            raise UnsupportedError(
                f"the base has no {names[0]}, which Wi-Fi needs", hint=f"use a base with {names[0]}"
            )


def stamp(cluster: Cluster, node: Node, _facts: Facts, secrets: Secrets) -> Stamp:
    """The node's address and Wi-Fi; raises `PiimageError` when there is no passphrase for it."""
    filled = {OURS: interfaces_text(cluster, node).encode()}
    if cluster.wifi is not None and node.role.wifi:
        psk = passphrase(cluster.wifi, node, secrets)
        filled[SUPPLICANT] = supplicant_text(cluster.wifi, psk).encode()
    return Stamp(slots=filled)


def interfaces_text(cluster: Cluster, node: Node) -> str:
    """interfaces(5) of a node: a fixed address, and no route but the subnet's where there is no gateway."""
    way = ""
    if cluster.gateway is not None:
        way = f"\tgateway {cluster.gateway}\n"
        if cluster.dns:
            way += f"\tdns-nameservers {' '.join(map(str, cluster.dns))}\n"
    parts = [
        f"allow-hotplug {name}\niface {name} inet static\n\taddress {node.address}\n{way}{_NO_ROUTER}"
        for name in WIRED
    ]
    if cluster.wifi is not None and node.role.wifi:
        parts.append(_ROAMS)
    return "\n".join(parts)


def _stock(facts: Facts) -> dict[str, Entry]:
    """The base's own files without our ports, and with ours among what they read; files of nothing else go."""
    found: dict[str, Entry] = {}
    for path, fact in facts.files.items():
        if fact.kind != "file" or not path.startswith(f"{FOLDER}/") or path == OURS:
            continue
        text = without(fact.text, (*WIRED, WIRELESS))
        if text != fact.text:
            said = any(line.strip() and line.strip()[0] != "#" for line in text.splitlines())
            found[path] = rewritten(facts, path, text) if said else Absent()
    stock = facts.text(INTERFACES)
    text = without(stock, (*WIRED, WIRELESS))
    if not _SOURCES.search(text):
        text = with_newline(text) + _SOURCE
    if text != stock:
        found[INTERFACES] = rewritten(facts, INTERFACES, text)
    return found


def without(text: str, ports: Iterable[str]) -> str:
    """interfaces(5) text without what it says of `ports`, all the rest as it is.

    A stanza goes on until the next keyword; of lines that list ports only the names go.
    """
    ours = tuple(ports)
    kept: list[str] = []
    dropping = False
    for line in re.findall(r"(?:[^\n]*\\\n)*[^\n]*\n?", text):
        found = _KEYWORD.match(line.replace("\\\n", " "))
        if found is None:
            if not dropping or line.lstrip().startswith("#"):
                kept.append(line)
            continue
        keyword, words = found[1], found[2].split()
        named = words[:1] if keyword == "iface" else words
        hits = [name for name in named if _names(name, ours)]
        dropping = keyword in ("iface", "mapping") and bool(hits)
        if keyword.startswith(("source", "rename")) or not hits:
            kept.append(line)
        elif not dropping and len(hits) < len(words):
            kept.append(f"{keyword} {' '.join(w for w in words if w not in hits)}\n")
    return "".join(kept)


def _names(word: str, ports: Iterable[str]) -> bool:
    """Whether a word of interfaces(5) means one of `ports`: a name, `NAME=LOGICAL` or a pattern such as `/eth*`."""
    name = word.partition("=")[0].strip("/")
    return any(fnmatchcase(port, name) for port in ports)
