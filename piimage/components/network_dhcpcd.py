"""dhcpcd with wpa_supplicant, as Raspberry Pi OS had them up to bullseye.

Both read one file each: /etc/dhcpcd.conf is the base's own text with the node's address at its end, and
wpa_supplicant.conf holds the hashed passphrase; both are slots. dhcpcd's hook `10-wpa_supplicant` starts
wpa_supplicant where there is a radio.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.components.contribution import Contribution, Stamp
from piimage.components.network_names import WIRED, WIRELESS, passphrase
from piimage.components.textfile import encode, with_newline
from piimage.delta import Absent, Delta, File, Slot
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role, Wifi
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

CONFIG = "/etc/dhcpcd.conf"
SUPPLICANT = "/etc/wpa_supplicant/wpa_supplicant.conf"
_SERVICE = "dhcpcd.service"
#: Raspberry Pi OS' option "wait for network at boot": with the cable out and no access point it waits for good.
_WAITS = f"/etc/systemd/system/{_SERVICE}.d/wait.conf"
#: On the firmware's partition: a first boot moves it over the one in /etc (raspberrypi-net-mods).
_MOVED_IN = "wpa_supplicant.conf"
#: With `noipv6rs` dhcpcd leaves a router's word to the kernel, which would take an address and a way out from it.
_SYSCTL = "/etc/sysctl.d/60-piimage-wire.conf"
_KIB = 1024
#: `profile` is used by name of a block that is one of ours no more; it harms nobody.
_BLOCK = re.compile(r"[ \t]*(interface|ssid|profile)[ \t]+(\S+)")
_LISTS = re.compile(r"[ \t]*(?:allow|deny)interfaces\b")
_HEADING = "# added by piimage"
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+(?: [A-Za-z0-9_.-]+)*")


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """Room for both files, and nothing that waits.

    Raises `UnsupportedError` for a node whose port is named by its MAC, which dhcpcd.conf(5) cannot say.
    """
    for node in cluster.nodes:
        if node.role == role and node.mac:
            raise UnsupportedError(
                f"node `{node.name}` names its wired port by `mac`, which the base's dhcpcd cannot",
                hint=f"leave `mac` out: the board's own port, {WIRED[0]}, is the wire then",
            )
    present = facts.files.get(CONFIG)
    config = Slot(
        slots.grown(8 * _KIB, len(facts.text(CONFIG))),
        mode=present.mode if present else 0o644,
        gid=present.gid if present else 0,
    )
    entries: dict[str, Entry] = {CONFIG: config}
    for path in (_WAITS, f"{facts.firmware}/{_MOVED_IN}"):
        if facts.has(path):
            entries[path] = Absent()
    entries[_SYSCTL] = File(
        "".join(f"net.ipv6.conf.{name}.accept_ra = 0\n" for name in WIRED).encode()
    )
    if cluster.wifi is not None and role.wifi:
        entries[SUPPLICANT] = Slot(4 * _KIB)
    return Contribution(delta=Delta.of("network", entries), enable=(_SERVICE,))


def stamp(cluster: Cluster, node: Node, facts: Facts, secrets: Secrets) -> Stamp:
    """The node's address and Wi-Fi; raises `PiimageError` when there is no passphrase for it."""
    filled = {CONFIG: encode(config_text(facts.text(CONFIG), cluster, node))}
    if cluster.wifi is not None and node.role.wifi:
        psk = passphrase(cluster.wifi, node, secrets)
        filled[SUPPLICANT] = supplicant_text(cluster.wifi, psk).encode()
    return Stamp(slots=filled)


def config_text(stock: str, cluster: Cluster, node: Node) -> str:
    """dhcpcd.conf(5): the base's text, then the wire. Options before the first `interface` are for all of them.

    Without `static routers` there is no route but the subnet's; `noipv6rs` has dhcpcd ask no router for one.
    """
    own = _without_ours(stock.partition(_HEADING)[0])
    rest = re.search(r"^(?:interface|ssid|profile)[ \t]", own, re.MULTILINE)
    ports = f"{_HEADING}\nallowinterfaces {' '.join([*WIRED, WIRELESS])}\n"
    head, tail = (own[: rest.start()], own[rest.start() :]) if rest else (own, "")
    way = _outward(cluster)
    wire = "".join(
        f"interface {name}\nstatic ip_address={node.address}\n{way}noipv6rs\n" for name in WIRED
    )
    return with_newline(head) + ports + with_newline(tail) + wire


def _without_ours(text: str) -> str:
    """dhcpcd.conf(5) without its blocks of our ports, whose options would add to ours, and without lists of ports.

    A block goes on until the next one begins. Comments stay.
    """
    kept: list[str] = []
    dropping = False
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        block = _BLOCK.match(line)
        if block:
            dropping = block[1] == "interface" and block[2] in (*WIRED, WIRELESS)
        said = bool(line.strip()) and not line.lstrip().startswith("#")
        if said and (dropping or _LISTS.match(line)):
            continue
        kept.append(line)
    return "".join(kept)


def _outward(cluster: Cluster) -> str:
    """The way out over the wire, or that there is none."""
    if cluster.gateway is None:
        return "nogateway\n"
    servers = " ".join(map(str, cluster.dns))
    names = f"static domain_name_servers={servers}\n" if servers else ""
    return f"static routers={cluster.gateway}\n{names}"


def supplicant_text(wifi: Wifi, psk: str) -> str:
    """wpa_supplicant.conf(5); a key without quotes is the hash, an SSID without quotes its bytes in hex."""
    ssid = f'"{wifi.ssid}"' if _PLAIN.fullmatch(wifi.ssid) else wifi.ssid.encode().hex()
    hidden = "\tscan_ssid=1\n" if wifi.hidden else ""
    return f"""\
ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=netdev
country={wifi.country}
network={{
\tssid={ssid}
{hidden}\tkey_mgmt=WPA-PSK
\tpsk={psk}
}}
"""
