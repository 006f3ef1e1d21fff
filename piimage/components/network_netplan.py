"""netplan with systemd-networkd: cloud-init hands network-config version 2 on as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from piimage.components.contribution import Contribution, Stamp
from piimage.components.network_names import WIRED, WIRELESS, passphrase
from piimage.delta import Delta, Directory, File

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role, Wifi
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

#: An older netplan refuses the whole file for a key that it does not know; the kernel command line has the
#: country anyway. Release notes of netplan 0.105.
_KNOWS_COUNTRIES = (0, 105)
#: Every netplan knows this; `default` only from 0.104 on.
_EVERYWHERE = "0.0.0.0/0"
#: networkd's own metric of a default route is 1024, NetworkManager's of a wired one 100.
_METRIC = 100
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


#: cloud-init of Ubuntu 22.04 writes its file here for all to read, Wi-Fi key and all, and keeps doing so
#: (cloudinit/features.py, NETPLAN_CONFIG_ROOT_READ_ONLY). Only root's programs read what is in it.
_CONFIG = "/etc/netplan"


def image(cluster: Cluster, role: Role, _facts: Facts) -> Contribution:
    """Drop-ins that keep a boot from waiting for a cable, a radio or an access point."""
    entries: dict[str, Entry] = {
        f"/etc/systemd/system/{_WAIT_ONLINE}.d/90-piimage.conf": File(_WAIT_FOR_NOTHING.encode())
    }
    if cluster.wifi is not None and role.wifi:
        device = "sys-subsystem-net-devices-wlan0.device"
        entries[f"/etc/systemd/system/{device}.d/10-piimage.conf"] = File(_SHORT_WAIT.encode())
        entries["/etc/udev/rules.d/90-piimage-wlan.rules"] = File(_LATE_RADIO.encode())
        entries[_CONFIG] = Directory(0o700)
    return Contribution(delta=Delta.of("network", entries), enable=("systemd-networkd.service",))


def stamp(cluster: Cluster, node: Node, facts: Facts, secrets: Secrets) -> Stamp:
    """The node's network-config; raises `PiimageError` when its Wi-Fi has no hashed passphrase."""
    network: dict[str, Any] = {"version": 2, "ethernets": _ethernets(cluster, node)}
    if cluster.wifi is not None and node.role.wifi:
        psk = passphrase(cluster.wifi, node, secrets)
        network["wifis"] = {WIRELESS: _wifi(cluster.wifi, psk, facts)}
    return Stamp(network=network)


def _ethernets(cluster: Cluster, node: Node) -> dict[str, Any]:
    """Without a gateway no route: the wire leads to the other nodes and nowhere else."""
    wired: dict[str, Any] = {
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "link-local": ["ipv6"],
        "addresses": [str(node.address)],
        "optional": True,
    }
    if node.mac:
        wired |= _outward(cluster, _METRIC)
        return {"wired": {**wired, "match": {"macaddress": node.mac.lower()}}}
    return {
        name: {**wired, **_outward(cluster, metric)} for metric, name in enumerate(WIRED, _METRIC)
    }


def _outward(cluster: Cluster, metric: int) -> dict[str, Any]:
    """The way out over the wire. A board has one of the ports, netplan warns of two routes that are equal."""
    if cluster.gateway is None:
        return {}
    outward: dict[str, Any] = {
        "routes": [{"to": _EVERYWHERE, "via": str(cluster.gateway), "metric": metric}]
    }
    if cluster.dns:
        outward["nameservers"] = {"addresses": [str(address) for address in cluster.dns]}
    return outward


def _wifi(wifi: Wifi, psk: str, facts: Facts) -> dict[str, Any]:
    point: dict[str, Any] = {"password": psk}
    if wifi.hidden:
        point["hidden"] = True
    port = {"dhcp4": True, "optional": True, "access-points": {_ssid(wifi.ssid, facts): point}}
    if _version(facts) >= _KNOWS_COUNTRIES:
        port["regulatory-domain"] = wifi.country
    return port


def _ssid(ssid: str, facts: Facts) -> str:
    r"""The SSID for netplan, which from 1.0.1 on writes `P"..."`, where `\` escapes."""
    return ssid.replace("\\", "\\\\") if _version(facts) >= (1, 0) else ssid


def _version(facts: Facts) -> tuple[int, int]:
    found = re.match(r"(?:\d+:)?(\d+)(?:\.(\d+))?", facts.packages.get("netplan.io", ""))
    return (int(found[1]), int(found[2] or 0)) if found else (1, 0)
