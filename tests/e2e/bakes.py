"""A bake without a cluster: names of packages, a base, an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.bake import baked, choice, engines, package_files, packaging
from piimage.bases.store import Store
from piimage.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from piimage.bake.lock import Layer, Package
    from piimage.bases.cache import Cache
    from piimage.bases.record import Base


def resolve(base: Base, names: Sequence[str]) -> Layer:
    """The layer of `names` on top of `base`, from its archive."""
    with Store().scratch() as scratch:
        return packaging.archive(base, scratch, Quiet()).resolve(dict.fromkeys(names, "a test"), ())


def bake(base: Base, layer: Layer, engine: str, cache: Cache) -> Base:
    """`layer` baked into `base` by `engine`, the result in `cache`; tools and package files are everybody's."""
    store = Store()

    def fetch(packages: Sequence[Package], directory: Path) -> None:
        with store.scratch() as scratch:
            packaging.archive(base, scratch, Quiet()).fetch(packages, directory)

    chosen = choice.choose(engine, trusted=base.trusted, architecture=base.facts.architecture)
    return baked.ensure(
        base,
        layer,
        script=packaging.script(layer, base.facts),
        files=lambda: package_files.ensure(
            layer.packages, cache=store, fetch=fetch, progress=Quiet()
        ),
        engine=lambda: engines.engine(chosen, base, cache=store, progress=Quiet()),
        cache=cache,
        progress=Quiet(),
    )
