"""`piimage build`: images, or variants and stamps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from piimage.cli.options import CLUSTER, Json, Nodes, Quiet, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.artifact import Format
    from piimage.build import BuildResult, Made


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
    only_variants: Annotated[
        bool,
        typer.Option(
            "--only-variants",
            help="The variants of the nodes (all without `--node`), neither state nor secrets: for CI.",
        ),
    ] = False,
    from_variants: Annotated[
        Path | None,
        typer.Option(
            "--from-variants",
            metavar="DIR",
            help="Take the variants from here, where `--only-variants` has left them.",
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
    from piimage.bundle import read_all  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import chosen, load_all  # noqa: PLC0415 -- start-up time
    from piimage.errors import PiimageError  # noqa: PLC0415 -- start-up time

    _check_nodes(node, all_nodes=all_nodes, only_variants=only_variants)
    if only_variants and (from_variants is not None or require_state):
        raise typer.BadParameter("`--only-variants` needs neither variants nor a state")
    if fmt is not None and fmt not in FORMATS:
        raise typer.BadParameter(f"`{fmt}` is not a format; one of {', '.join(FORMATS)}")
    if engine not in ENGINES:
        raise typer.BadParameter(f"`{engine}` is not an engine; one of {', '.join(ENGINES)}")
    progress = progress_for(json_output=json_output, quiet=quiet)
    bundles = read_all(from_variants) if from_variants is not None else ()
    names = {bundle.base.name for bundle in bundles}
    cluster = load_all(source, progress, check_secrets=not only_variants, bases=names).cluster
    nodes = chosen(cluster, node)
    directory = output or source.parent / "dist" / cluster.name
    if output is not None and output.exists() and not output.is_dir():
        raise PiimageError(f"`{output}` is not a directory")
    store = Store(progress=progress)
    under_way = Build(
        cluster=cluster,
        store=store,
        output=directory,
        progress=progress,
        fmt=None if all_nodes and fmt is None else cast("Format", fmt or "img"),
        locked=locked,
        engine=engine,
        bundles=bundles,
    )
    with store.in_use():
        if only_variants:
            result = under_way.run_variants(nodes)
        else:
            result = under_way.run(nodes, env=os.environ, require_state=require_state)
    if json_output:
        print(json.dumps(_as_json(result), indent=2))  # noqa: T201 -- cli prints
    else:
        _tell(result, all_nodes=all_nodes)


def _check_nodes(node: list[str] | None, *, all_nodes: bool, only_variants: bool) -> None:
    """Either some nodes or all; variants are of all unless it is said of which."""
    if (node and all_nodes) or not (node or all_nodes or only_variants):
        raise typer.BadParameter("name nodes with `--node`, or take all with `--all`")


def _tell(result: BuildResult, *, all_nodes: bool) -> None:
    """What was made, where it is, what waits, what to do next."""
    for variant in result.variants:
        state = "built" if variant.fresh else "unchanged"
        print(  # noqa: T201 -- cli prints
            f"variant {variant.name}: {state}, sha256 {variant.sha256}  {variant.files[0]}"
        )
    for made in result.nodes:
        state = "built" if made.fresh else "unchanged"
        print(f"{made.node}: {state}, build {made.build}  {made.files[0]}")  # noqa: T201 -- cli prints
    for sentence in result.deferred:
        print(f"waits for first boot: {sentence}")  # noqa: T201 -- cli prints
    for sentence in following(result.nodes, all_nodes=all_nodes):
        print(f"next: {sentence}")  # noqa: T201 -- cli prints


def following(made: Sequence[Made], *, all_nodes: bool) -> Iterator[str]:
    """What to do with `made`, where that is one thing: a whole cluster, or one image that a card takes."""
    from piimage.host import as_root  # noqa: PLC0415 -- start-up time

    if all_nodes and made:
        yield (
            "`piimage boot --all --smoke` rehearses them in QEMU; "
            f"`{as_root()} flash --all` writes card after card"
        )
    elif len(made) == 1 and made[0].files[0].suffix == ".img":
        node = made[0].node
        yield (
            f"`piimage boot --node {node}` rehearses it in QEMU; "
            f"`{as_root()} flash /dev/sdX --node {node}` writes a card"
        )


def _as_json(result: BuildResult) -> dict[str, object]:
    return {
        "directory": str(result.directory),
        "manifest": str(result.manifest),
        "waits_for_first_boot": list(result.deferred),
        "variants": [
            {
                "name": made.name,
                "id": made.id,
                "sha256": made.sha256,
                "nodes": list(made.nodes),
                "files": [str(path) for path in made.files],
                "fresh": made.fresh,
            }
            for made in result.variants
        ],
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
