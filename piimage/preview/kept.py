"""`plan.json` beside a build: what was made of what, so that a later plan can say which cards are stale, and why.

It holds digests of what is written, with words in place of secrets, so it may be read by whoever reads the manifest.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from piimage.disk.atomic import write_bytes
from piimage.errors import PiimageError
from piimage.preview.record import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.preview.record import Record

NAME = "plan.json"


def keep(
    directory: Path, cluster: Cluster, builds: Mapping[str, str], planned: Callable[[], Record]
) -> None:
    """Write what was made of the nodes whose builds are `builds` into the file; nodes of earlier builds stay in it.

    `planned` gives the record of what was planned of them.
    """
    path = directory / NAME
    there = of_build(directory) or {}
    known = {node["name"]: node for node in there.get("nodes", ())}
    if there.get("cluster") != cluster.name:
        known = {}
    names = {node.name for node in cluster.nodes}
    if all(known.get(name, {}).get("build") == build for name, build in builds.items()):
        return
    made = planned()
    for node in made["nodes"]:
        known[node["name"]] = {**node, "build": builds[node["name"]]}
    known = {name: node for name, node in known.items() if name in names}
    variants = {v["id"]: v for v in (*there.get("variants", ()), *made["variants"])}
    for variant in variants.values():
        variant["nodes"] = [n for n, node in known.items() if node["variant"] == variant["id"]]
    whole = {
        **made,
        "variants": [variant for variant in variants.values() if variant["nodes"]],
        "nodes": [known[node.name] for node in cluster.nodes if node.name in known],
    }
    write_bytes(path, json.dumps(whole, indent=1).encode() + b"\n", mode=0o644)


def of_build(directory: Path) -> Record | None:
    """The record that a build keeps in its directory; None where there is none of this version."""
    return _read(directory / NAME)


def read(path: Path) -> Record:
    """The record in the file `path`, or in that of a build's directory; raises `PiimageError` for anything else."""
    if path.is_dir():
        path /= NAME
    found = _read(path)
    if found is None:
        raise PiimageError(
            f"`{path}` holds no plan",
            hint="give the directory of a build, what `piimage plan --json` printed, or a cluster.yaml",
        )
    return found


def _read(path: Path) -> Record | None:
    try:
        found: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PiimageError(f"`{path}` cannot be read: {reason}") from error
    return found if isinstance(found, dict) and found.get("version") == VERSION else None
