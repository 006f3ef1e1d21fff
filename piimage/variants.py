"""The variants of a build: planned, made here or taken in from elsewhere, named and published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage import __version__, artifact, bundle, imprint, variant
from piimage.bases import looked_up
from piimage.bundle import Bundle
from piimage.components import mpi
from piimage.plan.plan import plan_variant
from piimage.preview.preview import preview
from piimage.preview.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from piimage.artifact import Format
    from piimage.bake.session import Packages
    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.cluster import Cluster, Node, Role
    from piimage.plan.plan import VariantPlan
    from piimage.preview.record import Record
    from piimage.progress import Progress
    from piimage.variant import Variant

Planned = tuple["Base", "VariantPlan", "Bundle | None"]


@dataclass(slots=True)
class Ready:
    """The variant of one role, and what it was made of; `bundle` where it was built elsewhere."""

    base: Base
    plan: VariantPlan
    variant: Variant
    name: str
    bundle: Bundle | None


@dataclass(slots=True)
class Variants:
    """`packages` are the cluster's; `bundles` are asked instead where there are any."""

    cluster: Cluster
    store: Store
    progress: Progress
    packages: Packages
    bundles: Sequence[Bundle] = ()
    roles: dict[Role, Ready] = field(default_factory=dict)

    def plan(self, roles: Iterable[Role]) -> dict[Role, Planned]:
        """Everything that can go wrong without an appliance goes wrong here, before anything of ours is written."""
        planned: dict[Role, Planned] = {}
        roles = tuple(roles)
        if not self.bundles:
            self.packages.settle(roles)
        for role in roles:
            if self.bundles:
                found, plan = bundle.match(self.bundles, self.cluster, role)
                planned[role] = (found.base, plan, found)
                continue
            base = looked_up.for_overlays(self.packages.base(role), self.cluster, role)
            planned[role] = (base, plan_variant(self.cluster, role, base.facts), None)
        facts = {role: base.facts for role, (base, _, _) in planned.items()}
        mpi.refuse_mixed(self.cluster, facts)
        return planned

    def make(self, planned: Mapping[Role, Planned], *, alone: bool = False) -> None:
        """Have all of them in the cache. `alone`: their names must differ from those of other builds of the cluster."""
        for role, (base, plan, found) in planned.items():
            if found is None:
                made = variant.ensure(base, plan, cache=self.store, progress=self.progress)
            else:
                made = variant.adopt(
                    base, plan, found.image, found.sha256, self.store, self.progress
                )
            self.roles[role] = Ready(base, plan, made, role.name, found)
        for role, ready in self.roles.items():
            same = {r.variant.id for other, r in self.roles.items() if other.name == role.name}
            shared = alone and sum(r.name == role.name for r in self.cluster.roles) > 1
            if shared or len(same) > 1:
                ready.name = f"{role.name}-{ready.variant.id[:8]}"

    def bases(self) -> tuple[Base, ...]:
        """What they were made of."""
        return tuple(ready.base for ready in self.roles.values())

    def forget(self, manifest: dict[str, Any], fmt: Format) -> None:
        """Take what `publish` will replace out of the manifest."""
        for ready in self.roles.values():
            if not self._is_there(ready, manifest, fmt):
                manifest["variants"].pop(ready.name, None)

    def publish(self, output: Path, manifest: dict[str, Any], fmt: Format = "img") -> list[Ready]:
        """Variants hold no secret: anyone may read them. Those that were not there already are told."""
        directory, fresh = output / "variants", []
        for ready in self.roles.values():
            present = directory / f"{ready.name}.sha256"
            if self._is_there(ready, manifest, fmt) and present.exists():
                continue
            with self.progress.step(f"publishing variant `{ready.name}`"):
                published = artifact.publish(
                    ready.variant.image,
                    directory,
                    ready.name,
                    fmt=fmt,
                    mode=0o644,
                    progress=self.progress,
                )
            manifest["variants"][ready.name] = {
                "id": ready.variant.id,
                "role": ready.plan.role.name,
                "base": ready.base.id,
                "image": f"variants/{published.image.name}",
                "sha256": published.sha256,
                "content": variant.content_digest(ready.variant),
                "packages": dict(ready.base.facts.packages),
            }
            fresh.append(ready)
        return fresh

    def pack(self, output: Path, manifest: Mapping[str, Any]) -> list[Path]:
        """Write beside each published variant what stamping it elsewhere takes, and its census."""
        found = []
        for ready in self.roles.values():
            known = manifest["variants"][ready.name]
            imprint.keep_census(output, ready.variant)
            made = Bundle(
                id=ready.variant.id,
                role=ready.plan.role.name,
                image=output / str(known["image"]),
                sha256=str(known["sha256"]),
                base=ready.base,
                piimage=__version__,
                plan=self.record([n for n in self.cluster.nodes if n.role == ready.plan.role]),
            )
            found.append(bundle.write(made))
        return found

    def record(self, nodes: Sequence[Node]) -> Record:
        """What was planned of `nodes` and their variants, by digests."""
        brought = [r.bundle.plan for r in self.roles.values() if r.bundle is not None]
        if not brought:
            return record(preview(self.cluster, nodes, self.packages), diffs=False)
        names = {node.name for node in nodes}
        return {
            **brought[0],
            "all_nodes": [node.name for node in self.cluster.nodes],
            "variants": [each for plan in brought for each in plan["variants"]],
            "nodes": [n for plan in brought for n in plan["nodes"] if n["name"] in names],
        }

    @staticmethod
    def _is_there(ready: Ready, manifest: Mapping[str, Any], fmt: Format) -> bool:
        known = manifest["variants"].get(ready.name, {})
        image = f"variants/{ready.name}.{fmt}"
        return (known.get("id"), known.get("image")) == (ready.variant.id, image)
