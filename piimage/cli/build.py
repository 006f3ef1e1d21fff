"""`piimage build`: images, or variants and stamps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from piimage.cli.options import CLUSTER, Json, Nodes, Quiet, Source

if TYPE_CHECKING:
    from piimage.artifact import Format
    from piimage.build import BuildResult


def build(
    *,
    source: Source = CLUSTER,
    node: Nodes = None,
    all_nodes: Annotated[
        bool,
        typer.Option(
            "--all", help="All nodes, as variants and stamps; with `--format`, as full images."
        ),
    ] = False,
    fmt: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="img, img.xz, img.zst or qcow2. [default: img]"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to put it. [default: dist/CLUSTER]"
        ),
    ] = None,
    require_state: Annotated[
        bool, typer.Option("--require-state", help="Fail rather than invent keys: for CI.")
    ] = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Fail rather than change the lock of packages: for CI.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            metavar="auto|chroot|vm", help="What installs packages; `piimage doctor` tells more."
        ),
    ] = "auto",
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Build card images for nodes of the cluster.

    Example: piimage build --node 3
    """
    from piimage.artifact import FORMATS  # noqa: PLC0415 -- start-up time
    from piimage.bake.choice import ENGINES  # noqa: PLC0415 -- start-up time
    from piimage.bases.store import Store  # noqa: PLC0415 -- start-up time
    from piimage.build import Build  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import chosen, load  # noqa: PLC0415 -- start-up time
    from piimage.errors import PiimageError  # noqa: PLC0415 -- start-up time

    if bool(node) == all_nodes:
        raise typer.BadParameter("name nodes with `--node`, or take all with `--all`")
    if fmt is not None and fmt not in FORMATS:
        raise typer.BadParameter(f"`{fmt}` is not a format; one of {', '.join(FORMATS)}")
    if engine not in ENGINES:
        raise typer.BadParameter(f"`{engine}` is not an engine; one of {', '.join(ENGINES)}")
    progress = progress_for(json_output=json_output, quiet=quiet)
    cluster = load(source, progress)
    nodes = chosen(cluster, node)
    directory = output or source.parent / "dist" / cluster.name
    if output is not None and output.exists() and not output.is_dir():
        raise PiimageError(f"`{output}` is not a directory")
    store = Store(progress=progress)
    build_ = Build(
        cluster=cluster,
        store=store,
        output=directory,
        progress=progress,
        fmt=None if all_nodes and fmt is None else cast("Format", fmt or "img"),
        locked=locked,
        engine=engine,
    )
    with store.in_use():
        result = build_.run(nodes, env=os.environ, require_state=require_state)
    if json_output:
        print(json.dumps(_as_json(result), indent=2))  # noqa: T201 -- cli prints
    else:
        _tell(result)


def _tell(result: BuildResult) -> None:
    """What was made, where it is, what waits, what to do next."""
    for made in result.nodes:
        state = "built" if made.fresh else "unchanged"
        print(f"{made.node}: {state}, build {made.build}  {made.files[0]}")  # noqa: T201 -- cli prints
    for sentence in result.deferred:
        print(f"waits for first boot: {sentence}")  # noqa: T201 -- cli prints
    if len(result.nodes) == 1 and result.nodes[0].files[0].suffix == ".img":
        node = result.nodes[0]
        print(  # noqa: T201 -- cli prints
            f"next: `piimage boot --node {node.node}` rehearses it in QEMU; "
            f"`sudo piimage flash /dev/sdX --node {node.node}` writes a card"
        )


def _as_json(result: BuildResult) -> dict[str, object]:
    return {
        "directory": str(result.directory),
        "manifest": str(result.manifest),
        "waits_for_first_boot": list(result.deferred),
        "nodes": [
            {
                "name": made.node,
                "build": made.build,
                "instance_id": made.instance_id,
                "variant": made.variant,
                "files": [str(path) for path in made.files],
                "fresh": made.fresh,
            }
            for made in result.nodes
        ],
    }
