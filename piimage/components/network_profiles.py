"""NetworkManager: one keyfile for the wire and one for Wi-Fi, in slots.

cloud-init's network-config is not used here: its own renderer for NetworkManager writes no Wi-Fi, and with
netplan between the two a node would depend on how three programs agree. A keyfile is what NetworkManager reads
itself, of every release; it ignores one that others than root may read (nm-settings-keyfile(5)).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from piimage.components.contribution import Contribution, Stamp
from piimage.components.network_names import WIRED, WIRELESS, passphrase
from piimage.delta import Delta, Directory, File, Slot

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role, Wifi
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

_PROFILES = "/etc/NetworkManager/system-connections"
WIRED_PROFILE = f"{_PROFILES}/piimage-wired.nmconnection"
WIFI_PROFILE = f"{_PROFILES}/piimage-wifi.nmconnection"
_SETTINGS = "/etc/NetworkManager/conf.d/90-piimage.conf"
_STATE = "/var/lib/NetworkManager/NetworkManager.state"
_SERVICE = "NetworkManager.service"
_FIREWALL = "firewalld.service"
_WAIT_ONLINE = "NetworkManager-wait-online.service"
_SIZE = 4096
#: Whatever else is plugged in is nobody's business: without this it would be asked for an address by DHCP,
#: and might get the default route (NetworkManager.conf(5)).
_NO_DEFAULTS = "[main]\nno-auto-default=*\n"
#: With the cable out or no access point there is nothing to wait for, and cloud-init asks to be online.
_WAIT_FOR_NOTHING = "[Service]\nExecStart=\nExecStart=/usr/bin/true\n"
#: Raspberry Pi OS ships `WirelessEnabled=false` until somebody names a country.
_RADIO_ON = "[main]\nNetworkingEnabled=true\nWirelessEnabled=true\nWWANEnabled=true\n"
#: Anything else goes as a list of bytes: `;`, `\` and blanks at the ends mean something in a keyfile.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*(?: [A-Za-z0-9_.-]+)*")


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """The profiles' slots, and settings by which nothing waits and nothing else is touched."""
    entries: dict[str, Entry] = {
        WIRED_PROFILE: Slot(_SIZE),
        _SETTINGS: File(_NO_DEFAULTS.encode()),
    }
    if _WAIT_ONLINE in facts.units:
        drop_in = f"/etc/systemd/system/{_WAIT_ONLINE}.d/90-piimage.conf"
        entries[drop_in] = File(_WAIT_FOR_NOTHING.encode())
    if cluster.wifi is not None and role.wifi:
        entries[WIFI_PROFILE] = Slot(_SIZE)
        entries[_STATE] = File(_RADIO_ON.encode())
        if not facts.has(_STATE.rpartition("/")[0]):
            entries[_STATE.rpartition("/")[0]] = Directory(0o700)
    return Contribution(delta=Delta.of("network", entries), enable=(_SERVICE,))


def stamp(cluster: Cluster, node: Node, facts: Facts, secrets: Secrets) -> Stamp:
    """The node's profiles; raises `PiimageError` when its Wi-Fi has no hashed passphrase."""
    firewall = _FIREWALL in facts.units and facts.units[_FIREWALL].enabled
    filled = {WIRED_PROFILE: wired_text(cluster, node, firewall=firewall).encode()}
    if cluster.wifi is not None and node.role.wifi:
        psk = passphrase(cluster.wifi, node, secrets)
        filled[WIFI_PROFILE] = wifi_text(cluster, cluster.wifi, psk).encode()
    return Stamp(slots=filled)


def wired_text(cluster: Cluster, node: Node, *, firewall: bool = False) -> str:
    """A fixed address, and no route but the subnet's where there is no gateway; tried again for as long as it takes.

    Fedora's firewalld lets in ssh alone, and MPI takes any port: the wire is the cluster's own, so with a `firewall`
    it belongs to the zone that lets in all.
    """
    zone = "zone=trusted\n" if firewall else ""
    port = f"[match]\ninterface-name={''.join(f'{name};' for name in WIRED)}\n"
    ethernet = ""
    if node.mac:
        port, ethernet = "", f"mac-address={node.mac.upper()}\n"
    return f"""\
[connection]
id=piimage-wired
uuid={_uuid(cluster, "wired")}
type=ethernet
autoconnect-priority=100
autoconnect-retries=0
{zone}
{port}
[ethernet]
{ethernet}
[ipv4]
method=manual
address1={node.address}
{_outward(cluster)}
[ipv6]
method=link-local
never-default=true
"""


def _outward(cluster: Cluster) -> str:
    """The way out over the wire, or that there is none."""
    if cluster.gateway is None:
        return "never-default=true\n"
    servers = "".join(f"{address};" for address in cluster.dns)
    return f"gateway={cluster.gateway}\n" + (f"dns={servers}\n" if servers else "")


def wifi_text(cluster: Cluster, wifi: Wifi, psk: str) -> str:
    """DHCP and the default route; `psk` is 64 hex digits, which are taken for the key itself."""
    hidden = "hidden=true\n" if wifi.hidden else ""
    return f"""\
[connection]
id=piimage-wifi
uuid={_uuid(cluster, "wifi")}
type=wifi
interface-name={WIRELESS}
autoconnect-retries=0

[wifi]
mode=infrastructure
ssid={_ssid(wifi.ssid)}
{hidden}
[wifi-security]
key-mgmt=wpa-psk
psk={psk}

[ipv4]
method=auto

[ipv6]
method=auto
"""


def _ssid(ssid: str) -> str:
    """The SSID for a keyfile: as it is where it is plain, else as its bytes."""
    if _PLAIN.fullmatch(ssid):
        return ssid
    return "".join(f"{byte};" for byte in ssid.encode())


def _uuid(cluster: Cluster, what: str) -> str:
    """The same at every build; a node has each profile once."""
    return str(uuid5(NAMESPACE_URL, f"piimage:{cluster.name}:{what}"))
