"""A build: cluster and base in, variants, stamps and images out. Each step is skipped when its result is there."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage import artifact, imprint, manifest, stamping
from piimage.bake.session import Packages
from piimage.disk.atomic import write_errors
from piimage.errors import WriteFailedError
from piimage.plan.plan import plan_stamp
from piimage.preview import kept
from piimage.run import require
from piimage.state.state import open_state
from piimage.variants import Variants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from piimage.artifact import Format
    from piimage.bases.store import Store
    from piimage.bundle import Bundle
    from piimage.cluster import Cluster, Node
    from piimage.components.contribution import Secrets
    from piimage.plan.plan import StampPlan
    from piimage.progress import Progress
    from piimage.variants import Ready


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
class MadeVariant:
    """A variant in the output directory: its image, what stamping it elsewhere takes, whether both were there."""

    name: str
    id: str
    sha256: str
    nodes: tuple[str, ...]
    files: tuple[Path, ...]
    fresh: bool


@dataclass(frozen=True, slots=True)
class BuildResult:
    """All nodes' results, or those of variants, the manifest, and sentences about what waits for first boot."""

    directory: Path
    manifest: Path
    nodes: tuple[Made, ...]
    deferred: tuple[str, ...]
    variants: tuple[MadeVariant, ...] = ()


@dataclass(slots=True)
class Build:
    """A build under way; `fmt` None means variants and stamps only, `locked` that the lock may not change.

    `engine` is one of `piimage.bake.choice.ENGINES`. Variants come from `bundles` where there are any.
    """

    cluster: Cluster
    store: Store
    output: Path
    progress: Progress
    fmt: Format | None = None
    locked: bool = False
    engine: str = "auto"
    bundles: Sequence[Bundle] = ()
    _variants: Variants = field(init=False)

    def __post_init__(self) -> None:
        packages = Packages(
            self.cluster, self.store, self.progress, locked=self.locked, engine=self.engine
        )
        self._variants = Variants(self.cluster, self.store, self.progress, packages, self.bundles)

    def run(
        self, nodes: Sequence[Node], *, env: Mapping[str, str], require_state: bool = False
    ) -> BuildResult:
        """Build `nodes`; raises a `PiimageError` and leaves nothing half-made when something fails."""
        self._begin()
        if require_state:
            open_state(self.cluster, create=False)
        planned = self._variants.plan(dict.fromkeys(node.role for node in nodes))
        state = open_state(self.cluster, create=not require_state)
        secrets = state.secrets(self.cluster, env, self.progress, create=not require_state)
        self._variants.make(planned)
        with self._output():
            return self._publish(nodes, secrets)

    def run_variants(self, nodes: Sequence[Node]) -> BuildResult:
        """Build the variants of `nodes` alone, which takes neither state nor secret, to be stamped elsewhere."""
        self._begin()
        planned = self._variants.plan(dict.fromkeys(node.role for node in nodes))
        self._variants.make(planned, alone=True)
        with self._output():
            known = manifest.read(self.output, self.cluster)
            before, kind = json.dumps(known), self.fmt or "img"
            self._variants.forget(known, kind)
            if json.dumps(known) != before:
                self._write_manifest(known)
            fresh = self._variants.publish(self.output, known, kind)
            bundles = self._variants.pack(self.output, known)
            path = self._write_manifest(known)
        made = tuple(
            self._made_variant(ready, known, extra, fresh=ready in fresh)
            for ready, extra in zip(self._variants.roles.values(), bundles, strict=True)
        )
        return BuildResult(self.output, path, (), self._deferred(), made)

    def _begin(self) -> None:
        require("mcopy", "e2fsck", *artifact.tools(self.fmt))
        # Another cluster's directory is refused before anything is done.
        manifest.read(self.output, self.cluster)

    def _made_variant(
        self, ready: Ready, known: Mapping[str, Any], bundle: Path, *, fresh: bool
    ) -> MadeVariant:
        entry = known["variants"][ready.name]
        return MadeVariant(
            ready.name,
            ready.variant.id,
            str(entry["sha256"]),
            tuple(n.name for n in self.cluster.nodes if n.role == ready.plan.role),
            (self.output / str(entry["image"]), bundle),
            fresh,
        )

    def _deferred(self) -> tuple[str, ...]:
        roles = self._variants.roles.values()
        return tuple(dict.fromkeys(s for ready in roles for s in ready.plan.deferred))

    def _publish(self, nodes: Sequence[Node], secrets: Secrets) -> BuildResult:
        """Everything that the output directory gets; what is replaced leaves the manifest first."""
        known = manifest.read(self.output, self.cluster)
        stamps = [self._stamp_plan(node, secrets) for node in nodes]
        self._forget(stamps, known)
        if self.fmt is None:
            self._variants.publish(self.output, known)
        results = []
        with self.progress.step(f"stamping {len(nodes)} node{'s' * (len(nodes) != 1)}") as task:
            for stamped in stamps:
                task.note(stamped.node.name)
                role = self._variants.roles[stamped.node.role]
                results.append(self._node(stamped.node, role, stamped, known))
        path = self._write_manifest(known)
        builds = {made.node: made.build for made in results}
        kept.keep(self.output, self.cluster, builds, lambda: self._variants.record(nodes))
        return BuildResult(self.output, path, tuple(results), self._deferred())

    @contextmanager
    def _output(self) -> Iterator[None]:
        """The output directory, for this process alone."""
        with _elsewhere():
            self._prepare()
            with self.store.lock(f"output-{self._output_id()}"):
                yield

    def _prepare(self) -> None:
        """The output directory: private when we make it, as it was when the user had it before."""
        with write_errors(self.output):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.mkdir(mode=0o700, exist_ok=True)
        artifact.prepare(self.output)

    def _output_id(self) -> str:
        return hashlib.sha256(os.fsencode(self.output.resolve())).hexdigest()[:16]

    def _stamp_plan(self, node: Node, secrets: Secrets) -> StampPlan:
        role = self._variants.roles[node.role]
        return plan_stamp(self.cluster, node, role.base.facts, role.plan, role.variant.id, secrets)

    def _forget(self, stamps: Sequence[StampPlan], known: dict[str, Any]) -> None:
        """Take what will be replaced out of the manifest on disk: killed in between, it must not lie."""
        before = json.dumps(known)
        kind = self.fmt or "stamp"
        for stamped in stamps:
            entry = known["nodes"].get(stamped.node.name, {})
            if entry.get(kind) != stamped.build:
                entry.pop(kind, None)
        if self.fmt is None:
            self._variants.forget(known, "img")
        if json.dumps(known) != before:
            self._write_manifest(known)

    def _write_manifest(self, known: dict[str, Any]) -> Path:
        return manifest.write(self.output, self.cluster, known, self._variants.bases())

    def _node(self, node: Node, role: Ready, stamped: StampPlan, whole: dict[str, Any]) -> Made:
        """One node's artifact, unless it is there from the same inputs."""
        kind = self.fmt or "stamp"
        known = whole["nodes"].get(node.name, {})
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
        whole["nodes"][node.name] = {
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


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Where the output's disk is full, another one is a cure too."""
    try:
        yield
    except WriteFailedError as error:
        error.hint = error.hint and f"{error.hint}, or choose another place with `--output`"
        raise
