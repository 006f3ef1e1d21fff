"""What TAB offers for values: nodes of the cluster.yaml here, images, formats. A shell waits for it."""

from __future__ import annotations

from pathlib import Path


def nodes(incomplete: str) -> list[str]:
    """Names of the nodes of `cluster.yaml` that begin so; none where that file is absent or wrong."""
    from piimage import resolve  # noqa: PLC0415 -- start-up time of everything else
    from piimage.errors import ConfigError  # noqa: PLC0415 -- same

    try:
        cluster = resolve.load(Path("cluster.yaml"), check_secrets=False).cluster
    except ConfigError:
        return []
    return [node.name for node in cluster.nodes if node.name.startswith(incomplete)]


def images(incomplete: str) -> list[str]:
    """Names of images that can be pulled; none where a profile beside is wrong."""
    from piimage.bases.catalog import entries  # noqa: PLC0415 -- start-up time of everything else
    from piimage.errors import ConfigError  # noqa: PLC0415 -- same

    try:
        known = entries(Path())
    except ConfigError:
        return []
    return [name for name in known if known[name].published and name.startswith(incomplete)]


def formats(incomplete: str) -> list[str]:
    """What `piimage export` can write."""
    from piimage.export.files import FORMATS  # noqa: PLC0415 -- start-up time of everything else

    return [name for name in (*FORMATS, "all") if name.startswith(incomplete)]
