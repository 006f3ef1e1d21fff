"""The bases of a cluster with their packages: names, layers, lock and bakes, in one place.

wanted packages ─▶ names on the base ─▶ layers ─▶ lock ─▶ files ─▶ baked bases
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.bake import baked, choice, engines, layers, lock, package_files, packaging
from piimage.components.growth import hindrance
from piimage.distros.packages import real_names
from piimage.errors import ConfigError
from piimage.plan.recipe import preseed, refuse, wanted_packages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from piimage.bake.choice import Choice
    from piimage.bake.engine import Engine
    from piimage.bake.layers import Names
    from piimage.bake.lock import Layer, Lock, Package
    from piimage.bake.package_files import Fetch
    from piimage.bake.packaging import Archive
    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.cluster import Cluster, Role
    from piimage.progress import Progress

_LOCKED_HINT = "`piimage lock` makes it, and so does a build without `--locked`"


@dataclass(frozen=True, slots=True)
class _Group:
    """The roles of one base, what each wants on it by name, and in which layers; `needed` with what is there."""

    base: Base
    wanted: Mapping[Role, Mapping[str, str]]
    needed: Mapping[Role, Mapping[str, str]]
    layers: Mapping[Role, tuple[Names, ...]]


@dataclass(slots=True)
class Packages:
    """The packages of a cluster. `locked` refuses to change the lock, `update` resolves everything anew.

    `engine` is one of `choice.ENGINES`.
    """

    cluster: Cluster
    store: Store
    progress: Progress
    locked: bool = False
    update: bool = False
    engine: str = "auto"
    _chosen: dict[tuple[bool, str, str], Choice] = field(default_factory=dict)
    _groups: dict[tuple[str, str | None], _Group] = field(default_factory=dict)
    _chains: dict[Role, tuple[Layer, ...]] = field(default_factory=dict)

    def settle(self, roles: Iterable[Role]) -> Lock:
        """Find or make the lock of all that `roles` and the other roles of their bases want, and write it.

        Raises `ConfigError` with `locked` when the lock is not there or would change, and for packages that cannot be
        together, `UnsupportedError` for what a base has nothing for, and what resolving raises; the lock is then as it
        was.
        """
        for role in roles:
            self._group(role)
        path = lock.location(self.cluster.source)
        present = lock.read(path) or lock.Lock()
        fresh: list[Layer] = []
        for group in self._groups.values():
            fresh += self._settle(group, lock.Lock() if self.update else present)
        names = {group.base.name for group in self._groups.values()}
        settled = lock.Lock((*(x for x in present.layers if x.base not in names), *fresh))
        if settled.layers or present.layers:
            self._keep(path, present, settled)
        return settled

    def base(self, role: Role) -> Base:
        """The base of a settled role with its packages, baked now unless it is in the cache."""
        group = self._group(role)
        base = group.base
        for layer in self._chains[role]:
            base = self._baked(base, layer)
        return base

    def cached(self, role: Role) -> Base | None:
        """The base of a settled role with its packages if it is in the cache, else None."""
        found: Base | None = self._group(role).base
        for layer in self._chains[role]:
            if found:
                found = baked.find(found, layer, self._script(found, layer), self.store)
        return found

    def known(self, role: Role) -> tuple[Base, tuple[Layer, ...] | None]:
        """The bare base of a role and, if the lock has them, the layers on top; no archive is asked."""
        group = self._group(role)
        present = lock.read(lock.location(self.cluster.source)) or lock.Lock()
        chain: list[Layer] = []
        for names in group.layers[role]:
            layer = present.find(lock.below(group.base, chain), names)
            if layer is None:
                return group.base, None
            chain.append(layer)
        self._chains[role] = tuple(chain)
        return group.base, tuple(chain)

    def wanted(self, role: Role) -> Mapping[str, str]:
        """The packages that a role wants on its base, by the base's own names, each with who asks for it."""
        return self._group(role).wanted[role]

    def _group(self, role: Role) -> _Group:
        """The group of a role's base, with every role of the cluster that has the same base."""
        key = (role.base, role.base_sha256)
        if key not in self._groups:
            base = self.store.base(
                role.base, directory=self.cluster.directory, sha256=role.base_sha256
            )
            roles = [r for r in self.cluster.roles if (r.base, r.base_sha256) == key]
            refuse(self.cluster, roles, base.facts)
            self._forewarn(base)
            needed = {
                role: real_names(
                    wanted_packages(self.cluster, role, base.facts),
                    base.facts,
                    self.cluster.directory,
                    installed=True,
                )
                for role in roles
            }
            wanted = {
                role: {name: who for name, who in names.items() if name not in base.facts.packages}
                for role, names in needed.items()
            }
            self._groups[key] = _Group(base, wanted, needed, layers.split(wanted))
        return self._groups[key]

    def _forewarn(self, base: Base) -> None:
        """Say before any work what is known to disappoint after it."""
        if found := hindrance(base.facts):
            self.progress.warn(f"base `{base.name}`: {found}")

    def _settle(self, group: _Group, present: Lock) -> list[Layer]:
        """The layers of a group, from the lock or resolved now, each once; `_chains` learns of them."""
        found: dict[tuple[str, Names], Layer] = {}
        with ExitStack() as stack:
            archive: Archive | None = None
            for role, sets in group.layers.items():
                chain: list[Layer] = []
                for names in sets:
                    below = lock.below(group.base, chain)
                    layer = found.get((below, names)) or present.find(below, names)
                    if layer is None:
                        if archive is None:
                            archive = self._archive(group.base, stack)
                        layer = archive.resolve({n: group.wanted[role][n] for n in names}, chain)
                    layers.refuse_removals(layer, group.needed[role])
                    roles = dict.fromkeys(
                        r.name
                        for r, other in group.layers.items()
                        if other[: len(chain) + 1] == (*(x.wanted for x in chain), names)
                    )
                    layer = replace(layer, roles=tuple(roles))
                    found[below, names] = layer
                    chain.append(layer)
                self._chains[role] = tuple(chain)
        return list(found.values())

    def _archive(self, base: Base, stack: ExitStack) -> Archive:
        if self.locked:
            path = lock.location(self.cluster.source)
            state = "is of other packages than are wanted now" if path.exists() else "is not there"
            raise ConfigError(f"the lock `{path}` {state}", hint=_LOCKED_HINT)
        root = stack.enter_context(self._root())
        return packaging.archive(base, root, self.progress)

    def _keep(self, path: Path, present: Lock, settled: Lock) -> None:
        """Write the lock and tell what changed, unless `locked`."""
        if self.locked:
            return
        lock.write(path, settled)
        before = {layer.digest() for layer in present.layers}
        for layer in settled.layers:
            if layer.digest() not in before:
                count = len(layer.packages)
                megabytes = sum(p.size for p in layer.packages) / 1e6
                self.progress.say(
                    f"`{path.name}`: {count} package{'s' * (count != 1)} ({megabytes:.0f} MB) on base `{layer.base}` "
                    f"for {', '.join(layer.roles)}"
                )
                for name in layer.removed:
                    self.progress.warn(
                        f"`{name}` of base `{layer.base}` makes room for another package"
                    )

    def _baked(self, base: Base, layer: Layer) -> Base:
        """One layer on top of `base`; files and archive are touched only when there is something to bake."""

        def files() -> tuple[Path, ...]:
            return package_files.ensure(
                layer.packages, cache=self.store, fetch=self._fetcher(base), progress=self.progress
            )

        return baked.ensure(
            base,
            layer,
            script=self._script(base, layer),
            files=files,
            engine=lambda: self._engine(base),
            cache=self.store,
            progress=self.progress,
        )

    def _script(self, base: Base, layer: Layer) -> bytes:
        return packaging.script(layer, base.facts, preseed(self.cluster))

    def _engine(self, base: Base) -> Engine:
        """The engine for bakes into `base`; which one and why is told once."""
        architecture = base.facts.architecture
        root = base.facts.table.partition(base.facts.mounts["/"])
        kind = root.filesystem.type if root.filesystem else ""
        key = (base.trusted, architecture, kind)
        if key not in self._chosen:
            chosen = choice.choose(
                self.engine, trusted=base.trusted, architecture=architecture, kind=kind
            )
            self._chosen[key] = chosen
            self.progress.say(f"engine `{chosen.name}` bakes: {chosen.reason}")
        return engines.engine(self._chosen[key], base, cache=self.store, progress=self.progress)

    def _fetcher(self, base: Base) -> Fetch:
        def fetch(packages: Sequence[Package], directory: Path) -> None:
            with self._root() as root:
                packaging.archive(base, root, self.progress).fetch(packages, directory)

        return fetch

    @contextmanager
    def _root(self) -> Iterator[Path]:
        """An empty directory for an archive's own files, by a path without blanks."""
        with (
            self.store.scratch() as scratch,
            tempfile.TemporaryDirectory(prefix="piimage-") as temporary,
        ):
            link = Path(temporary, "archive")
            link.symlink_to(scratch)
            yield link
