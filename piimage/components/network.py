"""The network: a fixed wired address, and the default route: Wi-Fi's, or the wire's where it has a gateway.

Picks the renderer for the stack that is in force in the base; each stack is a sibling module with
`image(cluster, role, facts)` and `stamp(cluster, node, facts, secrets)`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from piimage.components import (
    network_dhcpcd,
    network_ifupdown,
    network_leftovers,
    network_names,
    network_netplan,
    network_profiles,
)
from piimage.components.contribution import Check, Contribution, Stamp
from piimage.delta import Delta, File
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.facts import Facts

_STACKS: Mapping[str, ModuleType] = MappingProxyType(
    {
        "netplan-networkd": network_netplan,
        "netplan-networkmanager": network_profiles,
        "networkmanager": network_profiles,
        "dhcpcd": network_dhcpcd,
        "ifupdown": network_ifupdown,
    }
)

#: The Wi-Fi radios of Pi 5, Pi 4 and Pi 3 / Zero 2 W as systemd-rfkill names their state files. No
#: such file exists before the radio was first seen, so "every file there is" would be none.
_RADIOS = ("1001100000.mmc", "fe300000.mmcnr", "3f300000.mmcnr")


def _stack(facts: Facts) -> ModuleType:
    try:
        return _STACKS[facts.network_stack]
    except KeyError:
        raise UnsupportedError(
            f"the base manages its network with `{facts.network_stack or 'nothing known'}`,"
            f" which is not supported: {', '.join(_STACKS)} are",
            hint="use another base, such as `debian-13`",
        ) from None


def lacking(cluster: Cluster, role: Role, facts: Facts) -> tuple[str, ...]:
    """Logical names of packages that the stack in force lacks for what the role has."""
    stack = _STACKS.get(facts.network_stack)
    if stack is None or not hasattr(stack, "lacking"):
        return ()
    wanted: tuple[str, ...] = stack.lacking(cluster, role, facts)
    return wanted


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """What all nodes of a role share: the radio on, its country, and nothing that waits."""
    part: Contribution = _stack(facts).image(cluster, role, facts)
    more = network_leftovers.gone(facts, part.delta.entries) | network_names.link(facts)
    part = replace(part, delta=part.delta.merge(Delta.of("network", more)))
    if cluster.wifi is None or not role.wifi:
        return part
    radios = {f"/var/lib/systemd/rfkill/platform-{name}:wlan": File(b"0\n") for name in _RADIOS}
    return Contribution(
        delta=part.delta.merge(Delta.of("network", radios)),
        enable=part.enable,
        disable=part.disable,
        mask=part.mask,
        # The one way to set the country that works on every release (the driver reads it when it
        # loads).
        cmdline=(*part.cmdline, f"cfg80211.ieee80211_regdom={cluster.wifi.country}"),
        checks=part.checks,
        deferred=part.deferred,
    )


def stamp(cluster: Cluster, node: Node, facts: Facts, secrets: Secrets) -> Stamp:
    """This node's addresses, and the hashed passphrase where it has Wi-Fi."""
    part: Stamp = _stack(facts).stamp(cluster, node, facts, secrets)
    address = re.escape(str(node.address))
    return Stamp(
        slots=part.slots,
        network=part.network,
        user_data=part.user_data,
        checks=(
            *part.checks,
            Check(
                name="wired address",
                argv=("ip", "-4", "-o", "address", "show"),
                expect=rf"\sinet {address}\s",
            ),
            _default_route(cluster),
            *_name_servers(cluster),
        ),
    )


def _name_servers(cluster: Cluster) -> Iterator[Check]:
    """With systemd-resolved, /etc/resolv.conf names a stub of the node's own, and /run has who is asked."""
    files = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
    for address in cluster.dns:
        expect = rf"(?m)^nameserver {re.escape(str(address))}$"
        argv = ("sh", "-c", f"cat {' '.join(files)} 2>/dev/null; true")
        yield Check(name=f"name server {address}", argv=argv, expect=expect)


def _default_route(cluster: Cluster) -> Check:
    argv = ("ip", "-4", "route", "show", "default")
    if cluster.gateway is None:
        expect = r"(?s)\A(?!.*\bdev (?:eth0|end0)\b)"
        return Check(name="no default route on the wire", argv=argv, expect=expect)
    expect = rf"(?m)^default via {re.escape(str(cluster.gateway))} "
    return Check(name="default route on the wire", argv=argv, expect=expect)
