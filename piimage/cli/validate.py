"""`piimage validate`: say what is wrong with a cluster.yaml, all of it at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piimage.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.cluster import Cluster
    from piimage.report import Diagnostic


def validate(
    path: Annotated[Path, typer.Argument(metavar="CLUSTER.YAML", help="The file to check.")] = Path(
        "cluster.yaml"
    ),
    *,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON on stdout.")
    ] = False,
    no_secrets: Annotated[
        bool, typer.Option("--no-secrets", help="Do not ask for `env:` and `file:` to be there.")
    ] = False,
) -> None:
    """Check a cluster.yaml: show every mistake with its line and cure; exit 2 if there is one.

    Example: piimage validate cluster.yaml
    """
    from piimage import resolve  # noqa: PLC0415 -- start-up time of the other commands
    from piimage.bases.known import known_facts, known_names  # noqa: PLC0415 -- same

    try:
        loaded = resolve.load(
            path,
            facts=known_facts,
            check_secrets=not no_secrets,
            bases=known_names(path.parent),
        )
    except ConfigError as error:
        if not json_output:
            raise
        _print(None, error.diagnostics)
        raise typer.Exit(ExitCode.BAD_CONFIG) from None
    if json_output:
        _print(loaded.cluster, loaded.diagnostics)
        return
    show(loaded.diagnostics)
    typer.echo(_sentence(loaded.cluster, path))


def show(diagnostics: Sequence[Diagnostic]) -> None:
    """Print findings for people on stderr; for every command that loads a cluster.yaml."""
    if diagnostics:
        from piimage.cli.console import colour_wanted  # noqa: PLC0415 -- start-up time
        from piimage.report import render_text  # noqa: PLC0415 -- start-up time

        print(render_text(diagnostics, colour=colour_wanted()) + "\n", file=sys.stderr)  # noqa: T201 -- cli prints


def _sentence(cluster: Cluster, path: Path) -> str:
    first, last = cluster.nodes[0].name, cluster.nodes[-1].name
    count = len(cluster.nodes)
    nodes = f"1 node ({first})" if count == 1 else f"{count} nodes ({first} to {last})"
    return f"{path} is valid: `{cluster.name}`, {nodes}, head {cluster.head.name}"


def _print(cluster: Cluster | None, diagnostics: Sequence[Diagnostic]) -> None:
    found: dict[str, Any] = {
        "ok": cluster is not None,
        "diagnostics": [diagnostic.to_json() for diagnostic in diagnostics],
        "cluster": cluster and summary(cluster),
    }
    typer.echo(json.dumps(found, indent=2))


def summary(cluster: Cluster) -> dict[str, Any]:
    """The cluster's name and nodes as plain JSON values, without anything secret."""
    return {
        "name": cluster.name,
        "nodes": [
            {
                "number": node.number,
                "name": node.name,
                "role": node.role.name,
                "address": str(node.address),
                "mac": node.mac,
                "board": node.board,
                "base": node.role.base,
                "target": str(node.role.target),
                "wifi": node.role.wifi,
            }
            for node in cluster.nodes
        ],
    }
