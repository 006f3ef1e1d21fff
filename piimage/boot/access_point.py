"""The access point that a rehearsal brings along for a node's Wi-Fi, as QEMU arguments and text.

mac80211_hwsim gives the guest two radios that hear each other; hostapd has the second one, in a network namespace of
its own. How it is started goes through QEMU's fw_cfg as systemd's credentials (systemd.system-credentials(7)), so that
neither the card nor its command line holds the passphrase; the command line gains one token.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from piimage.emulator import escaped
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.cluster import Wifi

#: Networks for documentation (RFC 5737): the first that is not the cluster's becomes the access point's.
_NETWORKS = tuple(IPv4Network(n) for n in ("198.51.100.0/24", "203.0.113.0/24"))
#: systemd takes a unit from the credential `systemd.extra-unit.NAME` since then (systemd.system-credentials(7)).
_SINCE = 256
#: fw_cfg's names have at most 55 characters, and the unit's credential has them all: hence its short name.
UNIT = "a.service"
_CREDENTIALS = "opt/io.systemd.credentials"
#: Seen by the guest as /dev/disk/by-id/virtio-SERIAL.
_SERIAL = "piimage-radio"
_MOUNTED = "/run/piimage-kit"
TOKEN = f"systemd.wants={UNIT}"
_UNIT = """\
[Unit]
Description=Radio and access point of the rehearsal
DefaultDependencies=no
After=systemd-udevd.service systemd-udev-trigger.service
Conflicts=shutdown.target
Before=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ImportCredential=piimage.*
ExecStartPre=udevadm wait --timeout=120 /dev/disk/by-id/virtio-{serial}
ExecStartPre=mkdir -p {kit}
ExecStart=sh -c 'mount -t ext4 -o ro /dev/disk/by-id/virtio-{serial} {kit} && exec sh {kit}/start {kit} {net}'
"""


class AccessPoint(StrEnum):
    """What a node's Wi-Fi meets: its access point, one with another passphrase, or nobody."""

    RIGHT = "right"
    WRONG_PASSPHRASE = "wrong-passphrase"  # noqa: S105 -- a word of the command line
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """A rehearsed radio: the `kit` disk, what is met, hostapd's configuration (secret; None without one)."""

    kit: Path
    point: AccessPoint
    network: IPv4Network
    configuration: str | None = field(repr=False)

    @property
    def unit(self) -> str:
        """The unit that starts it in the guest."""
        net = str(self.network.network_address).rpartition(".")[0]
        absent = self.point is AccessPoint.ABSENT
        return _UNIT.format(serial=_SERIAL, kit=_MOUNTED, net="absent" if absent else net)

    @property
    def gateway(self) -> str:
        """The access point's own address."""
        return str(self.network.network_address + 1)


def check_guest(node: str, systemd: str) -> None:
    """Raise `UnsupportedError` where the system of `node`, with this version of systemd, would start no radio."""
    found = re.match(r"(?:\d+:)?(\d+)", systemd)
    if found is not None and int(found[1]) < _SINCE:
        raise UnsupportedError(
            f"`{node}` cannot be given a radio: its base has systemd {found[1]}, and starting one takes {_SINCE}",
            hint="without --access-point the second NIC stands in for Wi-Fi; Debian 13's is new enough",
        )


def radio(kit: Path, point: AccessPoint, wifi: Wifi, psk: str, subnet: IPv4Network) -> Radio:
    """The radio of a node of a cluster with this Wi-Fi; `psk` has 64 hex digits, `subnet` is the wire's."""
    if point is AccessPoint.WRONG_PASSPHRASE:
        psk = hashlib.sha256(psk.encode()).hexdigest()
    absent = point is AccessPoint.ABSENT
    return Radio(
        kit=kit,
        point=point,
        network=next(net for net in _NETWORKS if not net.overlaps(subnet)),
        configuration=None if absent else hostapd(wifi, psk),
    )


def hostapd(wifi: Wifi, psk: str) -> str:
    """hostapd.conf; it announces no country, so that the one in force is what the node itself asked for."""
    lines = [
        "interface=wlan1", "driver=nl80211", f"ssid2={wifi.ssid.encode().hex()}", "hw_mode=g", "channel=6",
        f"ignore_broadcast_ssid={int(wifi.hidden)}", "wpa=2", "wpa_key_mgmt=WPA-PSK", "rsn_pairwise=CCMP",
        f"wpa_psk={psk}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def arguments(radio_: Radio, scratch: Path) -> list[str]:
    """QEMU's arguments for it; writes the credentials into `scratch`, a directory of ours alone."""
    texts = {f"systemd.extra-unit.{UNIT}": radio_.unit}
    if radio_.configuration is not None:
        texts["piimage.hostapd"] = radio_.configuration
    words = ["-drive", f"if=none,id=radio,format=raw,readonly=on,file={escaped(radio_.kit)}"]
    words += ["-device", f"virtio-blk-pci,drive=radio,serial={_SERIAL}"]
    for name, text in texts.items():
        path = scratch / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        words += ["-fw_cfg", f"name={_CREDENTIALS}/{name},file={escaped(path)}"]
    return words
