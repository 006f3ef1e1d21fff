"""The Wolfram engine, for analysis on the head: from the archive of Raspberry Pi OS, the only one that has it.

Its licence is for Raspberry Pi boards and must be accepted: `wolfram: true` in cluster.yaml is the owner's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.contribution import Check, Contribution
from piimage.errors import UnsupportedError
from piimage.spec.checks.wolfram import has_archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.cluster import Cluster, Role
    from piimage.facts import Facts

PACKAGE = "wolfram-engine"
#: The question that the package's installation asks (pi-gen, stage2/03-accept-mathematica-eula).
PRESEED = f"{PACKAGE} shared/accepted-wolfram-eula boolean true"
_CANNOT = f"the head's base has no {PACKAGE}: only the archive of Raspberry Pi OS has it"
_CURE = "use Raspberry Pi OS as the base of role `head`, or write `wolfram: false`"


def packages(cluster: Cluster, role: Role) -> tuple[str, ...]:
    """The package, on the head."""
    return (PACKAGE,) if cluster.wolfram and role.head else ()


def preseed(cluster: Cluster, _role: Role) -> tuple[str, ...]:
    """Lines for debconf-set-selections(1): the licence is accepted for whatever node gets the package."""
    return (PRESEED,) if cluster.wolfram else ()


def refuse(cluster: Cluster, roles: Sequence[Role], facts: Facts) -> None:
    """Raise `UnsupportedError` when the base of the head, among `roles`, cannot have the package."""
    wanted = cluster.wolfram and any(role.head for role in roles)
    if wanted and PACKAGE not in facts.packages and not has_archive(facts):
        raise UnsupportedError(_CANNOT, hint=_CURE)


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """The check that it is there; raises `UnsupportedError` for a base that cannot have it."""
    if not cluster.wolfram or not role.head:
        return Contribution()
    if PACKAGE not in facts.packages:
        raise UnsupportedError(_CANNOT, hint=_CURE)
    check = Check(
        name="wolfram",
        argv=("dpkg-query", "-W", "-f", "${db:Status-Status}", PACKAGE),
        expect="^installed$",
    )
    return Contribution(checks=(check,))
