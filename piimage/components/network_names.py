"""What all network stacks are told alike: the ports, and that Wi-Fi needs a passphrase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.errors import PiimageError

if TYPE_CHECKING:
    from piimage.cluster import Node, Wifi
    from piimage.components.contribution import Secrets

#: The board's own NIC: `eth0` with net.ifnames=0 or the Pi's link files, `end0` by systemd's naming
#: from 251.
WIRED = ("eth0", "end0")
WIRELESS = "wlan0"


def passphrase(wifi: Wifi, node: Node, secrets: Secrets) -> str:
    """The hashed passphrase, 64 hex digits; raises `PiimageError` when there is none."""
    if secrets.psk is None:
        raise PiimageError(
            f"node `{node.name}` has Wi-Fi, but there is no passphrase for `{wifi.ssid}`",
            hint="set `network: {wifi: {psk: ...}}` to `file:`, `env:` or 64 hex digits",
        )
    return secrets.psk
