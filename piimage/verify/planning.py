"""What a build of a node would make now, found out without making it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from piimage.bake.session import Packages
from piimage.bases import looked_up
from piimage.errors import ConfigError, PiimageError
from piimage.plan.plan import plan_stamp, plan_variant
from piimage.preview import against
from piimage.progress import Quiet
from piimage.variant import variant_id
from piimage.verify.known import Planned

if TYPE_CHECKING:
    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.plan.plan import VariantPlan
    from piimage.preview.record import Record


@dataclass(slots=True)
class Planning:
    """Plans of a cluster's nodes; each role is planned once. Nothing is fetched, baked or written."""

    cluster: Cluster
    store: Store
    secrets: Secrets | None
    _packages: Packages = field(init=False)
    _roles: dict[Role, tuple[Base, VariantPlan] | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._packages = Packages(self.cluster, self.store, Quiet(), locked=True)

    def node(self, name: str) -> tuple[Planned | None, str]:
        """The plan of a node, or what keeps it from being made."""
        try:
            node = self.cluster.node(name)
        except KeyError:
            return None, f"cluster.yaml has no node `{name}`"
        found = self._role(node.role)
        if isinstance(found, str):
            return None, found
        return self._planned(node, *found), ""

    def changed(self, name: str, made: Record) -> tuple[str, ...]:
        """What a build would take for a node now and did not when it planned a variant as `made` says.

        Known before packages are settled or in the cache, and so where `node` has no plan.
        """
        try:
            role = self.cluster.node(name).role
            base, chain = self._packages.known(role)
        except (KeyError, PiimageError):
            return ()
        packages = None if chain is None else {p.name: p.version for x in chain for p in x.packages}
        wanted = dict(self._packages.wanted(role))
        now = {"base": {"name": base.name, "id": base.id}, "wanted": wanted, "packages": packages}
        return tuple(against.made_of(made, now))

    def _role(self, role: Role) -> tuple[Base, VariantPlan] | str:
        if role not in self._roles:
            try:
                self._roles[role] = self._made(role)
            except ConfigError:
                raise
            except PiimageError as error:
                self._roles[role] = error.message
        return self._roles[role]

    def _made(self, role: Role) -> tuple[Base, VariantPlan] | str:
        base, chain = self._packages.known(role)
        baked = self._packages.cached(role) if chain is not None else None
        if baked is None:
            return f"base `{base.name}` with the packages of role `{role.name}` is not in the cache"
        used = looked_up.for_overlays(baked, self.cluster, role)
        return used, plan_variant(self.cluster, role, used.facts)

    def _planned(self, node: Node, base: Base, planned: VariantPlan) -> Planned:
        identity = variant_id(base, planned)
        stamp = None
        if self.secrets is not None:
            stamp = plan_stamp(self.cluster, node, base.facts, planned, identity, self.secrets)
        return Planned(
            variant=planned, variant_id=identity, stamp=stamp, packages=base.facts.packages
        )
