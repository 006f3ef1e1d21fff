"""MPI: one flavour on all nodes, a hostfile, and settings that keep it on the wire.

The flavours are sibling modules with `image(cluster, role, facts)` and `hostfile(cluster)`. They pin by
files and not by environment variables: a program started over ssh on another node reads its own
node's files, while the environment is that of whoever started it, and interfaces may differ in name.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from piimage.components import mpi_mpich, mpi_openmpi, slots
from piimage.components.contribution import Check, Contribution, Stamp
from piimage.delta import Delta
from piimage.errors import UnsupportedError
from piimage.spec.flavours import kind, lacks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.facts import Facts

_FLAVOURS: Mapping[str, ModuleType] = MappingProxyType({"openmpi": mpi_openmpi, "mpich": mpi_mpich})


def packages(cluster: Cluster, role: Role) -> tuple[str, ...]:
    """The library and its launcher everywhere, and on the head what compiles programs for it."""
    if cluster.mpi is None:
        return ()
    name = f"mpi-{cluster.mpi.flavour}"
    return (name, f"{name}-dev") if role.head else (name,)


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """The flavour's settings; raises `UnsupportedError` when the base has another flavour, or none."""
    if cluster.mpi is None:
        return Contribution()
    refuse(cluster, facts)
    flavour = cluster.mpi.flavour
    module = _FLAVOURS[flavour]
    others = [
        name for name, other in _FLAVOURS.items() if other is not module and other.there(facts)
    ]
    if others:
        raise UnsupportedError(
            f"the base of role `{role.name}` holds `{others[0]}` besides `{flavour}`, and programs"
            " made for one do not run under the other",
            hint=f"take out the package that brings {others[0]} (python3-mpi4py does, where it is"
            f" made for {others[0]}), or write `mpi: {{flavour: {others[0]}}}`",
        )
    if not module.there(facts):
        raise UnsupportedError(
            f"the base of role `{role.name}` has no `{flavour}`",
            hint=f"`mpi-{flavour}` in profiles/packages/ says which package brings it",
        )
    part: Contribution = module.image(cluster, role, facts)
    entries = {slots.HOSTFILE: slots.hostfile(cluster)}
    return Contribution(
        delta=part.delta.merge(Delta.of("mpi", entries)),
        enable=part.enable,
        checks=(
            Check(
                name="MPI", argv=("mpirun", "--version"),
                expect=f"{module.SAYS}[^0-9]*{re.escape(_upstream(module.version(facts)))}",
            ),
            *part.checks,
        ),
    )  # fmt: skip


def stamp(cluster: Cluster, _node: Node, _facts: Facts, _secrets: Secrets) -> Stamp:
    """The hostfile of all nodes, in the flavour's syntax."""
    if cluster.mpi is None:
        return Stamp()
    text: str = _FLAVOURS[cluster.mpi.flavour].hostfile(cluster)
    return Stamp(slots={slots.HOSTFILE: text.encode()})


def refuse(cluster: Cluster, facts: Facts) -> None:
    """Raise `UnsupportedError` for a flavour that the base's release does not have for its architecture."""
    if cluster.mpi and lacks(cluster.mpi.flavour, facts):
        raise UnsupportedError(
            f"{facts.os.pretty or facts.os.id} has no Open MPI for {facts.architecture}:"
            " version 5 gave up 32 bits",
            hint="write `mpi: {flavour: mpich}`, or take a 64-bit base",
        )


def refuse_mixed(cluster: Cluster, bases: Mapping[Role, Facts]) -> None:
    """Raise `UnsupportedError` unless one MPI program can run on the bases of all these roles.

    Libraries of two architectures, releases or versions do not talk to each other.
    """
    if cluster.mpi is None:
        return
    module = _FLAVOURS[cluster.mpi.flavour]
    kinds = {
        role: f"{kind(facts)} {cluster.mpi.flavour} {_upstream(module.version(facts))}"
        for role, facts in bases.items()
    }
    for role, found in kinds.items():
        first, expected = next(iter(kinds.items()))
        if found != expected:
            raise UnsupportedError(
                f"roles `{first.name}` and `{role.name}` cannot run one MPI program: they have"
                f" {expected} and {found}",
                hint="give both a base of one release and architecture, or leave out `mpi`",
            )


def _upstream(version: str) -> str:
    """`4.2.1` of `1:4.3.0+really4.2.1-1`: without epoch, Debian's revision and what was taken back."""
    text = re.sub(r"^\d+:", "", version).rpartition("+really")[2]
    found = re.match(r"[\d.]*\d", text)
    return found[0] if found else ""
