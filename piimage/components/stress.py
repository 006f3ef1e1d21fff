"""stress: a load generator, to see what nodes, supply and cooling do when all processors are busy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.contribution import Check, Contribution
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.facts import Facts

#: The package is called as its program is; the second one does the same where the first is not packaged.
_PROGRAMS = ("stress", "stress-ng")


def packages(cluster: Cluster, _role: Role) -> tuple[str, ...]:
    """Its logical name, on every node."""
    return ("stress",) if cluster.stress else ()


def image(cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """The check that it runs; raises `UnsupportedError` when no such package is there."""
    if not cluster.stress:
        return Contribution()
    program = next((name for name in _PROGRAMS if name in facts.packages), None)
    if program is None:
        raise UnsupportedError(
            f"the base has neither {' nor '.join(_PROGRAMS)}",
            hint="use a base whose archive has one of them, or write `stress: false`",
        )
    check = Check(
        name="stress",
        argv=(program, "--cpu", "1", "--timeout", "1"),
        user=cluster.users[0].name,
    )
    return Contribution(checks=(check,))
