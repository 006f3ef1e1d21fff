"""What was promised of a node: the plan's own checks, and the disk that should keep them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from piimage.bake.session import Packages
from piimage.boot import disk
from piimage.errors import PiimageError
from piimage.plan import plan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.boot.disk import Disk
    from piimage.cluster import Cluster, Node
    from piimage.components.contribution import Check
    from piimage.progress import Progress
    from piimage.state.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """`asked` are the plan's checks; `stale` is a sentence if `disk` is not what would be built now.

    `psk` is the key of the cluster's Wi-Fi in 64 hex digits, None where no node has any. `packages` has name
    and version of all that the node's base has, baked in or not.
    """

    disk: Disk
    asked: tuple[Check, ...]
    stale: str | None
    psk: str | None = field(repr=False)
    packages: Mapping[str, str] = field(repr=False)


def promised(
    cluster: Cluster,
    node: Node,
    *,
    store: Store,
    state: State,
    env: Mapping[str, str],
    output: Path,
    progress: Progress,
) -> Promise:
    """What cluster.yaml promises of `node`, and what in `output` should keep it.

    Raises `PiimageError` when nothing was built of the node.
    """
    found = disk.candidates(output, node)
    base = _base(cluster, node, store, progress)
    variant = plan.plan_variant(cluster, node.role, base.facts)
    known = disk.manifest(output)["nodes"].get(node.name, {})
    secrets = state.secrets(cluster, env)
    stamp = plan.plan_stamp(cluster, node, base.facts, variant, known.get("variant", ""), secrets)
    chosen = disk.choose(found, stamp.build)
    stale = None
    if chosen.build is not None and chosen.build != stamp.build:
        what = "stamp" if chosen.stamp else "image"
        stale = (
            f"the {what} of `{node.name}` was built from another cluster.yaml than the present one"
        )
    return Promise(
        disk=chosen,
        asked=(*variant.checks, *stamp.checks),
        stale=stale,
        psk=secrets.psk,
        packages=base.facts.packages,
    )


def _base(cluster: Cluster, node: Node, store: Store, progress: Progress) -> Base:
    """What the node's image was built from; nothing is resolved or baked for a rehearsal."""
    packages = Packages(cluster, store, progress, locked=True)
    packages.settle([node.role])
    base = packages.cached(node.role)
    if base is None:
        raise PiimageError(
            f"the base of `{node.name}` with its packages is not in the cache",
            hint=f"run `piimage build --node {node.name}`",
        )
    return base
