"""`piimage schema`: the JSON Schema of cluster.yaml."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON Schema of cluster.yaml, for editors.

    Example: piimage schema
    """
    from piimage.spec.schema import json_schema  # noqa: PLC0415 -- start-up time of the other commands

    typer.echo(json.dumps(json_schema(), indent=2))
