"""`manifest.json`: what a build's directory holds, from what, made by what."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

from piimage import __version__, artifact
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.cluster import Cluster

VERSION = 1
_ELSEWHERE = "choose another directory with `--output`"


def read(directory: Path, cluster: Cluster) -> dict[str, Any]:
    """The manifest of what is in `directory` already, or an empty one.

    Raises `PiimageError` if it cannot be read or is of another cluster.
    """
    path = directory / "manifest.json"
    fresh: dict[str, Any] = {"variants": {}, "nodes": {}}
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return fresh
    except OSError as error:
        raise PiimageError(
            f"cannot read `{path}`: {(error.strerror or str(error)).lower()}",
            hint=f"{_ELSEWHERE}, or run piimage as its owner",
        ) from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        return fresh
    if found.get("cluster") != cluster.name:
        raise PiimageError(
            f"`{directory}` holds the build of cluster `{found.get('cluster')}`", hint=_ELSEWHERE
        )
    return {**fresh, **found}


def write(
    directory: Path, cluster: Cluster, manifest: dict[str, Any], bases: Iterable[Base]
) -> Path:
    """Write it, with what is known of `bases`: no secret, no time of the build; equal builds have equal manifests."""
    present = manifest["nodes"]
    whole = {
        **manifest,
        "version": VERSION,
        "cluster": cluster.name,
        "bases": {**manifest.get("bases", {}), **{_name(base): _told(base) for base in bases}},
        "tools": {"piimage": __version__, "python": platform.python_version()},
        "nodes": {n.name: present[n.name] for n in cluster.nodes if n.name in present},
    }
    return artifact.write_manifest(directory, whole)


def _name(base: Base) -> str:
    """A base's name in the manifest: with packages baked in it is another base of the same name."""
    return base.name if base.lock is None else f"{base.name}+{base.lock[:12]}"


def _told(base: Base) -> dict[str, Any]:
    return {
        "id": base.id,
        "origin": base.origin.source,
        # When packages were baked into it says nothing about what it is: a bake elsewhere gives the same.
        **({"lock": base.lock} if base.lock else {"made": base.origin.at}),
        "tools": dict(base.tools),
        "packages": dict(base.facts.packages),
    }
