"""What a build would do, found out without doing it: no appliance, no archive, nothing written but caches of facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage import plan
from piimage.bake.session import Packages
from piimage.bases import looked_up
from piimage.changes import Change, changes
from piimage.components import mpi
from piimage.components.stand_ins import stand_ins
from piimage.delta import Delta, File
from piimage.variant import variant_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from piimage.bake.lock import Package
    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.cluster import Cluster, Node, Role
    from piimage.facts import Facts
    from piimage.plan import VariantPlan
    from piimage.progress import Progress

#: Stands for what is only known once everything else is.
BUILD = "<build>"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPreview:
    """What the image of a role gets.

    `packages` is None until there is a lock; `wanted` are names, each with who asks for it. When the packages are
    not baked yet, `id` is None and `waiting` has the components that wait for them, each with what it lacks.
    """

    role: Role
    nodes: tuple[str, ...]
    base: Base
    wanted: Mapping[str, str]
    packages: tuple[Package, ...] | None
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
    """What makes the variant of that id this node.

    `changes` are against the base; stand-ins take the place of secrets.
    """

    node: Node
    variant: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """All that was asked for; nodes only of variants that are exact."""

    cluster: Cluster
    variants: tuple[VariantPreview, ...]
    nodes: tuple[NodePreview, ...]


def preview(cluster: Cluster, nodes: Sequence[Node], store: Store, progress: Progress) -> Preview:
    """What a build of `nodes` would make of their bases; raises what a build raises before it makes anything."""
    packages = Packages(cluster, store, progress, locked=True)
    roles = dict.fromkeys(node.role for node in nodes)
    variants = {role: _variant(cluster, role, packages, nodes) for role in roles}
    mpi.refuse_mixed(cluster, {role: found.facts for role, found in variants.items()})
    return Preview(
        cluster=cluster,
        variants=tuple(variants.values()),
        nodes=tuple(
            _node(cluster, node, variants[node.role]) for node in nodes if variants[node.role].exact
        ),
    )


def _variant(
    cluster: Cluster, role: Role, packages: Packages, nodes: Sequence[Node]
) -> VariantPreview:
    base, chain = packages.known(role)
    baked = packages.cached(role) if chain is not None else None
    waiting: Mapping[str, str] = {}
    if baked is not None:
        planned = plan.plan_variant(cluster, role, baked.facts)
    else:
        planned, waiting = plan.plan_ahead(cluster, role, base.facts)
    used = baked or base
    facts = looked_up.for_changes(used.facts, used.path, planned.delta)
    installed = None if chain is None else tuple(p for layer in chain for p in layer.packages)
    return VariantPreview(
        role=role,
        nodes=tuple(node.name for node in nodes if node.role == role),
        base=base,
        wanted=packages.wanted(role),
        packages=installed,
        id=variant_id(baked, planned) if baked is not None else None,
        plan=planned,
        changes=changes(planned.delta, facts),
        facts=facts,
        waiting=waiting,
    )


def _node(cluster: Cluster, node: Node, variant: VariantPreview) -> NodePreview:
    stamped = plan.plan_stamp(
        cluster, node, variant.facts, variant.plan, variant.id or "", stand_ins(cluster)
    )

    def shown(content: bytes) -> bytes:
        return content.replace(stamped.build.encode(), BUILD.encode())

    whole = variant.plan.delta
    slots = Delta(dict(whole.slots), whole.owners)
    fat = Delta.of(
        "stamp",
        {
            f"{variant.facts.firmware}/{name}": File(shown(content))
            for name, content in stamped.firmware.items()
        },
    )
    filled = {path: shown(content) for path, content in stamped.slots.items()}
    return NodePreview(
        node=node,
        variant=variant.id or "",
        changes=changes(slots.merge(fat), variant.facts, filled),
    )
