"""`piimage plan`: what a build would change in which file of which node, before anything is written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piimage.cli.options import CLUSTER, Json, Nodes, Quiet, Source

if TYPE_CHECKING:
    from piimage.bake.session import Packages
    from piimage.bases.store import Store
    from piimage.cluster import Cluster
    from piimage.components.contribution import Secrets
    from piimage.preview.record import Record


def plan(
    source: Source = CLUSTER,
    *,
    node: Nodes = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="BASE", help="Another base than cluster.yaml names."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="LAST",
            help="What would be made anew and which cards become stale, since LAST: a build's directory, a plan "
            "as JSON, or another cluster.yaml.",
        ),
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Also what files hold that come or go.")
    ] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Names of files only.")] = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Show what a build would change, as a diff against the base; nothing is made or written.

    Example: piimage plan --node 3
    """
    from piimage.bases.store import Store  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import chosen, load_all  # noqa: PLC0415 -- start-up time
    from piimage.cli.plan_text import comparison, text  # noqa: PLC0415 -- start-up time
    from piimage.cli.table import room  # noqa: PLC0415 -- start-up time
    from piimage.preview.against import compare, written  # noqa: PLC0415 -- start-up time
    from piimage.preview.preview import preview  # noqa: PLC0415 -- start-up time
    from piimage.preview.record import record  # noqa: PLC0415 -- start-up time

    progress = progress_for(json_output=json_output, quiet=quiet)
    cluster = load_all(source, progress, check_secrets=False).cluster
    if base is not None:
        cluster = _on(cluster, base)
    nodes = chosen(cluster, node)
    store = Store(progress=progress)
    secrets, reason = _secrets(cluster, cluster, store) if against else (None, "")
    planned = preview(cluster, nodes, _packages(cluster, store), secrets)
    found = record(planned, diffs=against is None)
    if against is not None:
        last = _last(against, cluster, store, base)
        compared = compare(last, found)
        cards = written(found, _cards(cluster))
        if json_output:
            print(json.dumps({**compared.to_json(), "cards": cards}, indent=1))  # noqa: T201 -- cli prints
        else:
            print("\n".join(comparison(compared, str(against), reason, cards)))  # noqa: T201 -- cli prints
    elif json_output:
        print(json.dumps(found, indent=1))  # noqa: T201 -- cli prints
    else:
        lines = text(found, own=bool(node), new=diff, old=not brief, columns=room())
        print("\n".join(lines))  # noqa: T201 -- cli prints


def _packages(cluster: Cluster, store: Store) -> Packages:
    from piimage.bake.session import Packages  # noqa: PLC0415 -- start-up time
    from piimage.progress import Quiet  # noqa: PLC0415 -- start-up time

    return Packages(cluster, store, Quiet(), locked=True)


def _secrets(cluster: Cluster, owner: Cluster, store: Store) -> tuple[Secrets | None, str]:
    """The secrets of `cluster` out of the state of `owner`, or what keeps them from being had."""
    from piimage.state.peek import peek  # noqa: PLC0415 -- start-up time

    with store.scratch() as scratch:
        return peek(cluster, owner.source, os.environ, scratch)


def _cards(cluster: Cluster) -> list[tuple[str, str]]:
    """Nodes that `piimage flash` has written a card for, each with the build that is on it."""
    from piimage.state import cards  # noqa: PLC0415 -- start-up time
    from piimage.state.state import location  # noqa: PLC0415 -- start-up time

    return [(card.node, card.build) for card in cards.read(location(cluster.source) / cards.NAME)]


def _last(path: Path, now: Cluster, store: Store, base: str | None) -> Record:
    """The plan to compare with: kept by a build, printed as JSON, or made from another cluster.yaml."""
    from piimage.cli.loading import load_all  # noqa: PLC0415 -- start-up time
    from piimage.preview.kept import read  # noqa: PLC0415 -- start-up time
    from piimage.preview.preview import preview  # noqa: PLC0415 -- start-up time
    from piimage.preview.record import record  # noqa: PLC0415 -- start-up time
    from piimage.progress import Quiet  # noqa: PLC0415 -- start-up time

    if path.suffix not in (".yaml", ".yml"):
        return read(path)
    cluster = load_all(path, Quiet(), check_secrets=False).cluster
    if base is not None:
        cluster = _on(cluster, base)
    secrets, _ = _secrets(cluster, now, store)
    planned = preview(cluster, cluster.nodes, _packages(cluster, store), secrets)
    return record(planned, diffs=False)


def _on(cluster: Cluster, base: str) -> Cluster:
    """The cluster with all nodes on that base; a path is from here, not from cluster.yaml."""
    from piimage.bases.store import is_path  # noqa: PLC0415 -- start-up time

    name = str(Path(base).absolute()) if is_path(base) else base
    nodes = (
        replace(node, role=replace(node.role, base=name, base_sha256=None))
        for node in cluster.nodes
    )
    return replace(cluster, nodes=tuple(nodes))
