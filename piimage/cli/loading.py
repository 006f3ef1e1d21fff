"""Loading cluster.yaml for a command: warnings and notes are shown, errors are raised."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from piimage.cluster import Cluster, Node
    from piimage.progress import Progress
    from piimage.resolve import Loaded


def load(source: Path, progress: Progress) -> Cluster:
    """The resolved cluster; raises `ConfigError` with every mistake that it found."""
    return load_all(source, progress).cluster


def load_all(
    source: Path, progress: Progress, *, check_secrets: bool = True, bases: Collection[str] = ()
) -> Loaded:
    """The same with the origins of all values; without `check_secrets`, secrets need not be there.

    `bases` are names of bases that need not be here.
    """
    from piimage import resolve  # noqa: PLC0415 -- start-up time
    from piimage.bases.known import known_facts, known_names  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import colour_wanted  # noqa: PLC0415 -- start-up time
    from piimage.report import render_text  # noqa: PLC0415 -- start-up time

    loaded = resolve.load(
        source,
        env=os.environ,
        facts=known_facts,
        check_secrets=check_secrets,
        bases=known_names(source.parent).union(bases),
    )
    if loaded.diagnostics:
        progress.say(render_text(loaded.diagnostics, colour=colour_wanted()).rstrip("\n"))
    return loaded


def load_built(source: Path) -> Cluster:
    """The cluster of a build that is there already, perhaps for another user than its builder (`sudo`).

    Neither secrets nor bases need be there: what they say is in the build. Raises `ConfigError` as `load` does.
    """
    from piimage import resolve  # noqa: PLC0415 -- start-up time

    return resolve.load(source, env=os.environ, check_secrets=False).cluster


def chosen(cluster: Cluster, names: Sequence[str] | None) -> list[Node]:
    """The nodes that were asked for, in the cluster's order; raises `ConfigError` for one that is not there."""
    from piimage.errors import ConfigError  # noqa: PLC0415 -- start-up time

    if not names:
        return list(cluster.nodes)
    found = set()
    for name in names:
        try:
            found.add(cluster.node(name))
        except KeyError:
            first, last = cluster.nodes[0].name, cluster.nodes[-1].name
            raise ConfigError(
                f"cluster `{cluster.name}` has no node `{name}`",
                hint=f"it has {len(cluster.nodes)}: {first} to {last}, or 0 to {len(cluster.nodes) - 1}",
            ) from None
    return [node for node in cluster.nodes if node in found]
