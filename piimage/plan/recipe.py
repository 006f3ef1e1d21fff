"""The recipe: its components, and the packages that they need. Pure, and known to `plan` and to the bake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components import (
    blinkt,
    boot,
    cloudinit,
    firmware,
    growth,
    identity,
    localisation,
    mdns,
    mpi,
    network,
    nfs,
    overlays,
    roster,
    smoke,
    ssh,
    stress,
    timesync,
    tools,
    trust,
    upgrades,
    users,
    wolfram,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from piimage.cluster import Cluster, Role
    from piimage.facts import Facts

#: The recipe, in the order in which its checks are asked on a running node.
COMPONENTS: tuple[ModuleType, ...] = (
    cloudinit,
    growth,
    identity,
    localisation,
    users,
    ssh,
    trust,
    network,
    mdns,
    timesync,
    nfs,
    upgrades,
    boot,
    roster,
    mpi,
    smoke,
    tools,
    stress,
    wolfram,
    blinkt,
    overlays,
)


def packages_of(
    component: ModuleType, cluster: Cluster, role: Role, facts: Facts
) -> tuple[str, ...]:
    """Logical names of the packages that a component needs over the base of `facts`."""
    wanted: tuple[str, ...] = ()
    if hasattr(component, "packages"):
        wanted += component.packages(cluster, role)
    if hasattr(component, "lacking"):
        wanted += component.lacking(cluster, role, facts)
    return wanted


def wanted_packages(cluster: Cluster, role: Role, facts: Facts) -> dict[str, str]:
    """Logical names of all packages that `role` needs over the base of `facts`, each with who asks for it, in words."""
    wanted: dict[str, str] = {}
    for component in COMPONENTS:
        name = component.__name__.rpartition(".")[2]
        for package in packages_of(component, cluster, role, facts):
            wanted.setdefault(package, f"component `{name}`")
    for package in role.packages:
        wanted.setdefault(package, f"`packages` of role `{role.name}`")
    return wanted


def refuse(cluster: Cluster, roles: Sequence[Role], facts: Facts) -> None:
    """Raise `UnsupportedError` for a base of `roles` that no package makes fit, before any is asked for."""
    cloudinit.refuse(facts)
    firmware.refuse(facts)
    mpi.refuse(cluster, facts)
    wolfram.refuse(cluster, roles, facts)


def preseed(cluster: Cluster) -> tuple[str, ...]:
    """Lines for debconf-set-selections(1), of all roles, since one layer of packages may be for several."""
    lines = (
        line
        for component in COMPONENTS
        if hasattr(component, "preseed")
        for role in cluster.roles
        for line in component.preseed(cluster, role)
    )
    return tuple(dict.fromkeys(lines))
