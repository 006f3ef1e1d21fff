"""`piimage lock`: which packages a build will install, settled before it is run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from piimage.cli.options import CLUSTER, Json, Quiet, Source

if TYPE_CHECKING:
    from piimage.bake.lock import Lock


def lock(
    *,
    source: Source = CLUSTER,
    update: Annotated[
        bool, typer.Option("--update", help="Take the archive's present packages for all of it.")
    ] = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Settle which packages, by version and hash, the cluster's images get.

    Example: piimage lock --update
    """
    from piimage.bake.lock import location, write  # noqa: PLC0415 -- start-up time
    from piimage.bake.session import Packages  # noqa: PLC0415 -- start-up time
    from piimage.bases.store import Store  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import load  # noqa: PLC0415 -- start-up time

    progress = progress_for(json_output=json_output, quiet=quiet)
    cluster = load(source, progress)
    store = Store(progress=progress)
    with store.in_use():
        settled = Packages(cluster, store, progress, update=update).settle(cluster.roles)
    path = location(cluster.source)
    if not settled.layers:
        write(path, settled)  # scripts hand it on, whatever the cluster asks for
    if json_output:
        print(json.dumps(_as_json(settled), indent=2))  # noqa: T201 -- cli prints
        return
    if not settled.layers:
        print(f"`{source}` asks for no packages beyond its bases', and `{path.name}` says so")  # noqa: T201 -- cli prints
        return
    for layer in settled.layers:
        megabytes = sum(package.size for package in layer.packages) / 1e6
        print(  # noqa: T201 -- cli prints
            f"{layer.base}, {', '.join(layer.roles)}: {len(layer.packages)} packages, {megabytes:.1f} MB  "
            f"{path}"
        )


def _as_json(settled: Lock) -> dict[str, object]:
    return {
        "layers": [
            {
                "base": layer.base,
                "roles": list(layer.roles),
                "digest": layer.digest(),
                "wanted": list(layer.wanted),
                "packages": {package.name: package.version for package in layer.packages},
                "download": sum(package.size for package in layer.packages),
            }
            for layer in settled.layers
        ]
    }
