"""Which network stack is in force, decided from what is enabled, not from what is installed.

Sources: Raspberry Pi OS up to bullseye enables dhcpcd, bookworm NetworkManager (with ifupdown's
`networking` enabled beside it, without interfaces of its own), trixie NetworkManager with netplan;
Ubuntu for the Pi enables systemd-networkd with netplan, and desktops add NetworkManager as
netplan's renderer; raspi.debian.net's images have ifupdown. netplan's generator starts
systemd-networkd also where no link enables it (netplan(5), `renderer`: networkd is the default).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from piimage.facts import FileFact, Unit

_NETWORKD, _MANAGER = "systemd-networkd.service", "NetworkManager.service"
_DHCPCD, _IFUPDOWN = "dhcpcd.service", "networking.service"
NETPLAN_CONFIG = ("/usr/lib/netplan", "/lib/netplan", "/etc/netplan")
_RENDERER = re.compile(r"^[ ]{0,4}renderer:\s*[\"']?(\w+)", re.MULTILINE)


def network_stack(
    units: Mapping[str, Unit], packages: Collection[str], files: Mapping[str, FileFact]
) -> str:
    """The value of `Facts.network_stack`; raises `UnsupportedError` that says what was seen."""
    enabled = {name for name in (_NETWORKD, _MANAGER, _DHCPCD, _IFUPDOWN) if _on(units, name)}
    if "netplan.io" in packages:
        if _MANAGER in enabled and (
            _NETWORKD not in enabled or _renderer(files) == "NetworkManager"
        ):
            return "netplan-networkmanager"
        if _NETWORKD in units and not units[_NETWORKD].masked:
            return "netplan-networkd"
    elif _MANAGER in enabled and _NETWORKD not in enabled:
        return "networkmanager"
    elif _DHCPCD in enabled and _NETWORKD not in enabled:
        return "dhcpcd"
    elif enabled == {_IFUPDOWN}:
        return "ifupdown"
    seen = ", ".join(f"`{name}`" for name in sorted(enabled)) or "none of them"
    raise UnsupportedError(
        f"the image's network stack is not one that piimage can configure; enabled: {seen}; "
        f"netplan is {'installed' if 'netplan.io' in packages else 'not installed'}",
        hint="known are netplan (networkd or NetworkManager), NetworkManager, dhcpcd, ifupdown",
    )


def _on(units: Mapping[str, Unit], name: str) -> bool:
    unit = units.get(name)
    return unit is not None and unit.enabled


def _renderer(files: Mapping[str, FileFact]) -> str:
    """Netplan's renderer for everything: of all files the one whose name sorts last decides."""
    named = {}
    for directory in NETPLAN_CONFIG:  # a file in /etc hides one of the same name in /usr/lib
        for path, fact in files.items():
            parent, _, name = path.rpartition("/")
            if parent == directory and name.endswith(".yaml"):
                named[name] = fact.text
    found = [match[1] for name in sorted(named) for match in _RENDERER.finditer(named[name])]
    return found[-1] if found else "networkd"
