"""What all network stacks are told alike: the ports and their names, and that Wi-Fi needs a passphrase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.delta import File
from piimage.distros.family import family
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from piimage.cluster import Node, Wifi
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

#: The board's own NIC: `eth0` with net.ifnames=0 or the Pi's link files, `end0` by systemd's naming
#: from 251.
WIRED = ("eth0", "end0")
WIRELESS = "wlan0"
#: Up to the Pi 3 the board's own NIC hangs on USB, and systemd calls it after its path or its address, `enu1u1` or
#: `enxb827eb...`. Everybody but Fedora sees to it that it is eth0; there this does, systemd.link(5). By its driver (Pi
#: 3 B+; Pi 2 and 3) and below the one USB host of these boards, so that no adapter of another board is meant.
_LINK = "/etc/systemd/network/10-piimage-wire.link"
_NAMED = b"""\
[Match]
Path=platform-3f980000.usb-*
Driver=lan78xx smsc95xx

[Link]
Name=eth0
"""


def link(facts: Facts) -> dict[str, Entry]:
    """The file by which the board's own NIC is eth0, where the base would call it something else."""
    return {_LINK: File(_NAMED)} if family(facts).name == "fedora" else {}


def passphrase(wifi: Wifi, node: Node, secrets: Secrets) -> str:
    """The hashed passphrase, 64 hex digits; raises `PiimageError` when there is none."""
    if secrets.psk is None:
        raise PiimageError(
            f"node `{node.name}` has Wi-Fi, but there is no passphrase for `{wifi.ssid}`",
            hint="set `network: {wifi: {psk: ...}}` to `file:`, `env:` or 64 hex digits",
        )
    return secrets.psk
