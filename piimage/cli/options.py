"""Options and arguments that several commands have: one name, one letter and one sentence for each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from piimage.cli import completion

#: The default of `Source`.
CLUSTER = Path("cluster.yaml")


def node_option(words: str) -> Any:  # noqa: ANN401 -- as typer.Option itself
    """`--node NODE`, described by `words`, completed with the nodes of the cluster's file."""
    return typer.Option("--node", "-n", metavar="NODE", autocompletion=completion.nodes, help=words)


Source = Annotated[
    Path,
    typer.Argument(metavar="CLUSTER.YAML", help="The cluster's file.", show_default=True),
]
#: For commands whose argument is something else.
SourceOption = Annotated[
    Path,
    typer.Option("--cluster", "-c", metavar="CLUSTER.YAML", help="The cluster's file."),
]
Nodes = Annotated[list[str] | None, node_option("A node, by number or name; may be repeated.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
