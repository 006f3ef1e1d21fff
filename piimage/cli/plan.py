"""`piimage plan`: what a build would change in which file of which node, before anything is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from piimage.cluster import Cluster


def plan(
    source: Annotated[
        Path, typer.Argument(metavar="[CLUSTER.YAML]", help="The cluster's file.")
    ] = Path("cluster.yaml"),
    *,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node", "-n", metavar="NODE", help="A node, by number or name; may be repeated."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="BASE", help="Another base than cluster.yaml names."),
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Also what files hold that come or go.")
    ] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Names of files only.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show what a build would change, as a diff against the base; nothing is made or written.

    Example: piimage plan --node 3
    """
    from piimage.bases.store import Store  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import chosen, load_all  # noqa: PLC0415 -- start-up time
    from piimage.cli.plan_text import text  # noqa: PLC0415 -- start-up time
    from piimage.plan_record import record  # noqa: PLC0415 -- start-up time
    from piimage.preview import preview  # noqa: PLC0415 -- start-up time

    progress = progress_for(json_output=json_output, quiet=quiet)
    cluster = load_all(source, progress, check_secrets=False).cluster
    if base is not None:
        cluster = _on(cluster, base)
    nodes = chosen(cluster, node)
    found = record(preview(cluster, nodes, Store(progress=progress), progress))
    if json_output:
        print(json.dumps(found, indent=1))  # noqa: T201 -- cli prints
        return
    print("\n".join(text(found, own=bool(node), new=diff, old=not brief)))  # noqa: T201 -- cli prints


def _on(cluster: Cluster, base: str) -> Cluster:
    """The cluster with all nodes on that base; a path is from here, not from cluster.yaml."""
    from piimage.bases.store import is_path  # noqa: PLC0415 -- start-up time

    name = str(Path(base).absolute()) if is_path(base) else base
    nodes = (
        replace(node, role=replace(node.role, base=name, base_sha256=None))
        for node in cluster.nodes
    )
    return replace(cluster, nodes=tuple(nodes))
