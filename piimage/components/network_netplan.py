"""netplan with systemd-networkd: cloud-init hands network-config version 2 on as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from piimage.components.contribution import Contribution, Stamp
from piimage.delta import Delta, File
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role, Wifi
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

#: The board's own NIC: `eth0` with net.ifnames=0 or the Pi's link files, `end0` by systemd's naming
#: from 251.
WIRED = ("eth0", "end0")
WIRELESS = "wlan0"

_WAIT_ONLINE = "systemd-networkd-wait-online.service"
#: With every link optional there is nothing to wait for, and waiting for nothing takes two minutes.
#: netplan's own condition says so too, but only from the second boot on.
_WAIT_FOR_NOTHING = "[Service]\nExecStart=\nExecStart=/usr/bin/true\n"
#: netplan's unit requires the device and comes before network.target: without a radio everything
#: behind that would stand still for DefaultDeviceTimeoutSec, 90 s.
_SHORT_WAIT = "[Unit]\nJobRunningTimeoutSec=10s\n"
_LATE_RADIO = (
    'ACTION!="remove", SUBSYSTEM=="net", KERNEL=="wlan0", TAG+="systemd",'
    ' ENV{SYSTEMD_WANTS}+="netplan-wpa-wlan0.service"\n'
)


def image(cluster: Cluster, role: Role, _facts: Facts) -> Contribution:
    """Drop-ins that keep a boot from waiting for a cable, a radio or an access point."""
    entries: dict[str, Entry] = {
        f"/etc/systemd/system/{_WAIT_ONLINE}.d/90-piimage.conf": File(_WAIT_FOR_NOTHING.encode())
    }
    if cluster.wifi is not None and role.wifi:
        device = "sys-subsystem-net-devices-wlan0.device"
        entries[f"/etc/systemd/system/{device}.d/10-piimage.conf"] = File(_SHORT_WAIT.encode())
        entries["/etc/udev/rules.d/90-piimage-wlan.rules"] = File(_LATE_RADIO.encode())
    return Contribution(delta=Delta.of("network", entries), enable=("systemd-networkd.service",))


def stamp(cluster: Cluster, node: Node, facts: Facts, secrets: Secrets) -> Stamp:
    """The node's network-config; raises `PiimageError` when its Wi-Fi has no hashed passphrase."""
    network: dict[str, Any] = {"version": 2, "ethernets": _ethernets(node)}
    if cluster.wifi is not None and node.role.wifi:
        if secrets.psk is None:
            raise PiimageError(
                f"node `{node.name}` has Wi-Fi, but there is no passphrase for"
                f" `{cluster.wifi.ssid}`",
                hint="set `network: {wifi: {psk: ...}}` to `file:`, `env:` or 64 hex digits",
            )
        network["wifis"] = {WIRELESS: _wifi(cluster.wifi, secrets.psk, facts)}
    return Stamp(network=network)


def _ethernets(node: Node) -> dict[str, Any]:
    """No route and no gateway: the wire leads to the other nodes and nowhere else."""
    wired: dict[str, Any] = {
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "link-local": ["ipv6"],
        "addresses": [str(node.address)],
        "optional": True,
    }
    if node.mac:
        return {"wired": {**wired, "match": {"macaddress": node.mac.lower()}}}
    return {name: dict(wired) for name in WIRED}


def _wifi(wifi: Wifi, psk: str, facts: Facts) -> dict[str, Any]:
    point: dict[str, Any] = {"password": psk}
    if wifi.hidden:
        point["hidden"] = True
    return {
        "dhcp4": True,
        "optional": True,
        "regulatory-domain": wifi.country,
        "access-points": {_ssid(wifi.ssid, facts): point},
    }


def _ssid(ssid: str, facts: Facts) -> str:
    r"""The SSID for netplan, which from 1.0.1 on writes `P"..."`, where `\` escapes."""
    version = re.match(r"(?:\d+:)?(\d+)", facts.packages.get("netplan.io", "1"))
    return ssid.replace("\\", "\\\\") if version and int(version[1]) >= 1 else ssid
