"""A build: cluster and base in, variants, stamps and images out. Each step is skipped when its result is there."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage import __version__, artifact, imprint, stamping, variant
from piimage.bake.session import Packages
from piimage.bases import looked_up
from piimage.components import mpi
from piimage.disk.atomic import write_errors
from piimage.errors import PiimageError, WriteFailedError
from piimage.plan.plan import plan_stamp, plan_variant
from piimage.preview import kept
from piimage.run import require
from piimage.state.state import open_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from piimage.artifact import Format
    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.plan.plan import StampPlan, VariantPlan
    from piimage.progress import Progress
    from piimage.variant import Variant

MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Made:
    """One node's result: the files in the output directory, and whether they were there already."""

    node: str
    build: str
    instance_id: str
    variant: str
    files: tuple[Path, ...]
    fresh: bool


@dataclass(frozen=True, slots=True)
class BuildResult:
    """All nodes' results, the manifest, and sentences about what waits for first boot."""

    directory: Path
    manifest: Path
    nodes: tuple[Made, ...]
    deferred: tuple[str, ...]


@dataclass(slots=True)
class _Role:
    """What is computed once per role."""

    base: Base
    plan: VariantPlan
    variant: Variant
    name: str = ""


@dataclass(slots=True)
class Build:
    """A build under way; `fmt` None means variants and stamps only, `locked` that the lock may not change.

    `engine` is one of `piimage.bake.choice.ENGINES`.
    """

    cluster: Cluster
    store: Store
    output: Path
    progress: Progress
    fmt: Format | None = None
    locked: bool = False
    engine: str = "auto"
    _roles: dict[Role, _Role] = field(default_factory=dict)
    _packages: Packages = field(init=False)

    def run(
        self, nodes: Sequence[Node], *, env: Mapping[str, str], require_state: bool = False
    ) -> BuildResult:
        """Build `nodes`; raises a `PiimageError` and leaves nothing half-made when something fails."""
        require("mcopy", "e2fsck", *artifact.tools(self.fmt))
        self._manifest()  # another cluster's directory is refused before anything is done
        if require_state:
            open_state(self.cluster, create=False)
        plans = self._plan(nodes)
        state = open_state(self.cluster, create=not require_state)
        secrets = state.secrets(self.cluster, env, self.progress, create=not require_state)
        for role, (base, planned) in plans.items():
            made = variant.ensure(base, planned, cache=self.store, progress=self.progress)
            self._roles[role] = _Role(base, planned, made)
        self._name_variants()
        with _elsewhere():
            self._prepare()
            with self.store.lock(f"output-{self._output_id()}"):
                return self._publish(nodes, secrets)

    def _publish(self, nodes: Sequence[Node], secrets: Secrets) -> BuildResult:
        """Everything that the output directory gets; what is replaced leaves the manifest first."""
        manifest = self._manifest()
        stamps = [self._stamp_plan(node, secrets) for node in nodes]
        self._forget(stamps, manifest)
        if self.fmt is None:
            self._publish_variants(manifest)
        results = []
        with self.progress.step(f"stamping {len(nodes)} node{'s' * (len(nodes) != 1)}") as task:
            for stamped in stamps:
                task.note(stamped.node.name)
                role = self._roles[stamped.node.role]
                results.append(self._node(stamped.node, role, stamped, manifest))
        path = self._write_manifest(manifest)
        builds = {made.node: made.build for made in results}
        kept.keep(self.output, self.cluster, nodes, self._packages, builds)
        deferred = dict.fromkeys(s for role in self._roles.values() for s in role.plan.deferred)
        return BuildResult(self.output, path, tuple(results), tuple(deferred))

    def _plan(self, nodes: Sequence[Node]) -> dict[Role, tuple[Base, VariantPlan]]:
        """Everything that can go wrong without an appliance goes wrong here, before anything of ours is written."""
        plans: dict[Role, tuple[Base, VariantPlan]] = {}
        roles = tuple(dict.fromkeys(node.role for node in nodes))
        packages = self._packages = Packages(
            self.cluster, self.store, self.progress, locked=self.locked, engine=self.engine
        )
        packages.settle(roles)
        for role in roles:
            base = looked_up.for_overlays(packages.base(role), self.cluster, role)
            plans[role] = (base, plan_variant(self.cluster, role, base.facts))
        mpi.refuse_mixed(self.cluster, {role: base.facts for role, (base, _) in plans.items()})
        return plans

    def _prepare(self) -> None:
        """The output directory: private when we make it, as it was when the user had it before."""
        with write_errors(self.output):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.mkdir(mode=0o700, exist_ok=True)
        artifact.prepare(self.output)

    def _output_id(self) -> str:
        return hashlib.sha256(os.fsencode(self.output.resolve())).hexdigest()[:16]

    def _stamp_plan(self, node: Node, secrets: Secrets) -> StampPlan:
        role = self._roles[node.role]
        return plan_stamp(self.cluster, node, role.base.facts, role.plan, role.variant.id, secrets)

    def _forget(self, stamps: Sequence[StampPlan], manifest: dict[str, Any]) -> None:
        """Take what will be replaced out of the manifest on disk: killed in between, it must not lie."""
        before = json.dumps(manifest)
        kind = self.fmt or "stamp"
        for stamped in stamps:
            known = manifest["nodes"].get(stamped.node.name, {})
            if known.get(kind) != stamped.build:
                known.pop(kind, None)
        for made in self._roles.values() if self.fmt is None else ():
            if manifest["variants"].get(made.name, {}).get("id") != made.variant.id:
                manifest["variants"].pop(made.name, None)
        if json.dumps(manifest) != before:
            self._write_manifest(manifest)

    def _name_variants(self) -> None:
        """A variant is called by its role, and by its id too where two variants share a role's name."""
        for made in self._roles.values():
            same = {
                r.variant.id
                for r in self._roles.values()
                if r.plan.role.name == made.plan.role.name
            }
            name = made.plan.role.name
            made.name = name if len(same) == 1 else f"{name}-{made.variant.id[:8]}"

    def _publish_variants(self, manifest: dict[str, Any]) -> None:
        """Variants hold no secret: anyone may read them."""
        directory = self.output / "variants"
        for made in self._roles.values():
            known = manifest["variants"].get(made.name, {})
            if known.get("id") == made.variant.id and (directory / f"{made.name}.sha256").exists():
                continue
            with self.progress.step(f"publishing variant `{made.name}`"):
                published = artifact.publish(
                    made.variant.image, directory, made.name, mode=0o644, progress=self.progress
                )
            manifest["variants"][made.name] = {
                "id": made.variant.id,
                "role": made.plan.role.name,
                "base": made.base.id,
                "image": f"variants/{published.image.name}",
                "sha256": published.sha256,
                "packages": dict(made.base.facts.packages),
            }

    def _node(self, node: Node, role: _Role, stamped: StampPlan, manifest: dict[str, Any]) -> Made:
        """One node's artifact, unless it is there from the same inputs."""
        kind = self.fmt or "stamp"
        known = manifest["nodes"].get(node.name, {})
        directory = self.output if self.fmt else self.output / "stamps"
        names = [f"{node.name}.{kind}"]
        if self.fmt:
            names += [f"{node.name}.bmap", f"{node.name}.sha256"]
        files = tuple(directory / name for name in names)
        fresh = known.get(kind) != stamped.build or not all(path.exists() for path in files)
        if fresh:
            made = stamping.stamp(self.cluster, stamped, role.variant, role.base.facts)
            if self.fmt is None:
                artifact.prepare(directory)
                stamping.write_stamp(files[0], made)
            else:
                artifact.publish(
                    role.variant.image, directory, node.name,
                    fmt=self.fmt, patches=made.patches, progress=self.progress,
                )  # fmt: skip
                known = {k: v for k, v in known.items() if k == "stamp"}
        builds = [str(known.get(k)) for k in ("stamp", *artifact.FORMATS)]
        imprint.keep(self.output, self.cluster, stamped, role.variant, role.base.facts, builds)
        manifest["nodes"][node.name] = {
            **known,
            kind: stamped.build,
            "number": node.number,
            "address": str(node.address),
            "role": node.role.name,
            "instance_id": stamped.instance_id,
            "variant": role.variant.id,
            "base": role.base.id,
            "waits_for_first_boot": list(role.plan.deferred),
        }
        return Made(node.name, stamped.build, stamped.instance_id, role.variant.id, files, fresh)

    def _manifest(self) -> dict[str, Any]:
        """The manifest of what is in the output directory already, or an empty one."""
        path = self.output / "manifest.json"
        fresh: dict[str, Any] = {"variants": {}, "nodes": {}}
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return fresh
        except OSError as error:
            raise PiimageError(
                f"cannot read `{path}`: {(error.strerror or str(error)).lower()}",
                hint="choose another directory with `--output`, or run piimage as its owner",
            ) from error
        if not isinstance(found, dict) or found.get("version") != MANIFEST_VERSION:
            return fresh
        if found.get("cluster") != self.cluster.name:
            raise PiimageError(
                f"`{self.output}` holds the build of cluster `{found.get('cluster')}`",
                hint="choose another directory with `--output`",
            )
        return {**fresh, **found}

    def _write_manifest(self, manifest: dict[str, Any]) -> Path:
        """What is there, from what, made by what: no secret, no time, so that equal builds have equal manifests."""
        bases = {
            _base_name(made.base): {
                "id": made.base.id,
                "origin": made.base.origin.source,
                "made": made.base.origin.at,
                "tools": dict(made.base.tools),
                "packages": dict(made.base.facts.packages),
                **({"lock": made.base.lock} if made.base.lock else {}),
            }
            for made in self._roles.values()
        }
        whole = {
            **manifest,
            "version": MANIFEST_VERSION,
            "cluster": self.cluster.name,
            "bases": {**manifest.get("bases", {}), **bases},
            "tools": {"piimage": __version__, "python": platform.python_version()},
            "nodes": {
                n.name: manifest["nodes"][n.name]
                for n in self.cluster.nodes
                if n.name in manifest["nodes"]
            },
        }
        return artifact.write_manifest(self.output, whole)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Where the output's disk is full, another one is a cure too."""
    try:
        yield
    except WriteFailedError as error:
        error.hint = error.hint and f"{error.hint}, or choose another place with `--output`"
        raise


def _base_name(base: Base) -> str:
    """A base's name in the manifest: with packages baked in it is another base of the same name."""
    return base.name if base.lock is None else f"{base.name}+{base.lock[:12]}"
