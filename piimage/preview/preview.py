"""What a build would do, found out without doing it: no appliance, no archive, nothing written but caches of facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.bases import looked_up
from piimage.components import mpi
from piimage.components.stand_ins import stand_ins
from piimage.delta import Delta, File
from piimage.plan import plan
from piimage.plan.changes import Change, changes
from piimage.variant import variant_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from piimage.bake.lock import Package
    from piimage.bake.session import Packages
    from piimage.bases.record import Base
    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.facts import Facts
    from piimage.plan.plan import StampPlan, VariantPlan

#: Stands for what is only known once everything else is.
BUILD = "<build>"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPreview:
    """What the image of a role gets.

    `packages` is None until there is a lock, `removed` are those of the base that have to go; `wanted` are names, each
    with who asks for it. When the packages are not baked yet, `id` is None and `waiting` has the components that wait
    for them, each with what it lacks.
    """

    role: Role
    nodes: tuple[str, ...]
    base: Base
    wanted: Mapping[str, str]
    packages: tuple[Package, ...] | None
    removed: tuple[str, ...]
    id: str | None
    plan: VariantPlan
    changes: tuple[Change, ...]
    facts: Facts
    waiting: Mapping[str, str]

    @property
    def exact(self) -> bool:
        """Whether the changes are all that a build makes, and no others."""
        return self.id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePreview:
    """What makes the variant of that id this node; without an id, its variant is not exact and nothing is known.

    `changes` are against the base; stand-ins take the place of secrets. `build` is the id of the real thing, where
    the secrets are at hand.
    """

    node: Node
    variant: str | None
    build: str | None
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """All that was asked for."""

    cluster: Cluster
    variants: tuple[VariantPreview, ...]
    nodes: tuple[NodePreview, ...]


def preview(
    cluster: Cluster, nodes: Sequence[Node], packages: Packages, secrets: Secrets | None = None
) -> Preview:
    """What a build of `nodes` would make of their bases; raises what a build raises before it makes anything.

    `packages` are those of the cluster; nothing is resolved. `secrets` are for the ids of builds alone.
    """
    roles = dict.fromkeys(node.role for node in nodes)
    variants = {role: _variant(cluster, role, packages, nodes) for role in roles}
    mpi.refuse_mixed(cluster, {role: found.facts for role, found in variants.items()})
    return Preview(
        cluster=cluster,
        variants=tuple(variants.values()),
        nodes=tuple(_node(cluster, node, variants[node.role], secrets) for node in nodes),
    )


def _variant(
    cluster: Cluster, role: Role, packages: Packages, nodes: Sequence[Node]
) -> VariantPreview:
    base, chain = packages.known(role)
    baked = packages.cached(role) if chain is not None else None
    waiting: Mapping[str, str] = {}
    used = looked_up.for_overlays(baked or base, cluster, role)
    if baked is not None:
        planned = plan.plan_variant(cluster, role, used.facts)
    else:
        planned, waiting = plan.plan_ahead(cluster, role, used.facts)
    facts = looked_up.for_changes(used.facts, used.path, planned.delta)
    installed = None if chain is None else tuple(p for layer in chain for p in layer.packages)
    return VariantPreview(
        role=role,
        nodes=tuple(node.name for node in nodes if node.role == role),
        base=base,
        wanted=packages.wanted(role),
        packages=installed,
        removed=tuple(name for layer in chain or () for name in layer.removed),
        id=variant_id(baked, planned) if baked is not None else None,
        plan=planned,
        changes=changes(planned.delta, facts),
        facts=facts,
        waiting=waiting,
    )


def _node(
    cluster: Cluster, node: Node, variant: VariantPreview, secrets: Secrets | None
) -> NodePreview:
    if variant.id is None:
        return NodePreview(node=node, variant=None, build=None, changes=())
    planned, facts = variant.plan, variant.facts

    def stamp(secrets: Secrets) -> StampPlan:
        return plan.plan_stamp(cluster, node, facts, planned, variant.id or "", secrets)

    stamped = stamp(stand_ins(cluster))

    def shown(content: bytes) -> bytes:
        return content.replace(stamped.build.encode(), BUILD.encode())

    slots = Delta(dict(planned.delta.slots), planned.delta.owners)
    fat = {
        f"{facts.firmware}/{name}": File(shown(content))
        for name, content in stamped.firmware.items()
    }
    filled = {path: shown(content) for path, content in stamped.slots.items()}
    return NodePreview(
        node=node,
        variant=variant.id,
        build=stamp(secrets).build if secrets else None,
        changes=changes(slots.merge(Delta.of("stamp", fat)), facts, filled),
    )
