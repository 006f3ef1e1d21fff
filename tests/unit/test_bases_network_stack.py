from __future__ import annotations

import pytest

from piimage.bases.network_stack import network_stack
from piimage.errors import UnsupportedError
from piimage.facts import FileFact, Unit

NETWORKD, MANAGER = "systemd-networkd.service", "NetworkManager.service"
DHCPCD, IFUPDOWN = "dhcpcd.service", "networking.service"


def units(*enabled, masked=(), there=()):
    found = {name: Unit(path="/x") for name in there}
    found |= {name: Unit(path="/x", enabled=True) for name in enabled}
    return found | {name: Unit(path="/x", masked=True) for name in masked}


def renderer(**files):
    return {
        path: FileFact(kind="file", mode=0o600, uid=0, gid=0, content=text.encode())
        for path, text in files.items()
    }


@pytest.mark.parametrize(
    ("enabled", "netplan", "expected"),
    [
        ([NETWORKD], True, "netplan-networkd"),
        ([MANAGER], True, "netplan-networkmanager"),
        ([MANAGER, IFUPDOWN], True, "netplan-networkmanager"),
        ([MANAGER, NETWORKD], True, "netplan-networkd"),
        ([MANAGER], False, "networkmanager"),
        ([MANAGER, IFUPDOWN], False, "networkmanager"),
        ([DHCPCD], False, "dhcpcd"),
        ([DHCPCD, IFUPDOWN], False, "dhcpcd"),
        ([IFUPDOWN], False, "ifupdown"),
    ],
)
def test_what_is_enabled_decides(enabled, netplan, expected):
    assert network_stack(units(*enabled), {"netplan.io"} if netplan else set(), {}) == expected


def test_installed_and_not_enabled_decides_nothing():
    assert network_stack(units(IFUPDOWN, there=[MANAGER, DHCPCD]), (), {}) == "ifupdown"


def test_netplan_starts_networkd_by_itself():
    assert network_stack(units(there=[NETWORKD]), {"netplan.io"}, {}) == "netplan-networkd"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "netplan-networkd"),
        (
            {"/usr/lib/netplan/00-all.yaml": "network:\n  renderer: NetworkManager\n"},
            "netplan-networkmanager",
        ),
        (
            {
                "/usr/lib/netplan/00-all.yaml": "network:\n  renderer: NetworkManager\n",
                "/etc/netplan/01.yaml": "network:\n  version: 2\n  renderer: networkd\n",
            },
            "netplan-networkd",
        ),
        (
            {
                "/usr/lib/netplan/00-all.yaml": "network:\n  renderer: NetworkManager\n",
                "/etc/netplan/00-all.yaml": "network:\n  version: 2\n",
            },
            "netplan-networkd",
        ),
        (
            {"/etc/netplan/1.yaml": "network:\n  wifis:\n    w:\n      renderer: NetworkManager\n"},
            "netplan-networkd",
        ),
    ],
)
def test_with_both_enabled_the_renderer_decides(files, expected):
    found = network_stack(units(MANAGER, NETWORKD), {"netplan.io"}, renderer(**files))

    assert found == expected


@pytest.mark.parametrize(
    ("found", "packages", "seen"),
    [
        (units(), (), "enabled: none of them; netplan is not installed"),
        (units(NETWORKD), (), "enabled: `systemd-networkd.service`; netplan is not installed"),
        (units(MANAGER, NETWORKD), (), "`NetworkManager.service`, `systemd-networkd.service`"),
        (units(masked=[NETWORKD]), {"netplan.io"}, "none of them; netplan is installed"),
    ],
)
def test_other_stacks_are_refused_with_what_was_seen(found, packages, seen):
    with pytest.raises(UnsupportedError, match=seen):
        network_stack(found, packages, {})
