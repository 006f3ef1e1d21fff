"""`piimage matrix`: the variants of a cluster as jobs for CI."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from piimage.cli.options import CLUSTER, Source


def matrix(
    *,
    source: Source = CLUSTER,
    fmt: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="json, github or gitlab.")
    ] = "json",
) -> None:
    """Print which variants a cluster has, as jobs that CI can run side by side.

    Example: piimage matrix --format github
    """
    from piimage.cli.loading import load_built  # noqa: PLC0415 -- start-up time
    from piimage.export.matrix import FORMATS  # noqa: PLC0415 -- start-up time

    if fmt not in FORMATS:
        raise typer.BadParameter(f"`{fmt}` is not a format; one of {', '.join(FORMATS)}")
    cluster = load_built(source)
    found = FORMATS[fmt](cluster)
    if fmt == "gitlab":  # a job to be put behind others: YAML whose top is no JSON
        ((job, said),) = found.items()
        print(f"{job}: {json.dumps(said)}")  # noqa: T201 -- cli prints
    else:
        # What GitHub reads as an output is one line.
        print(json.dumps(found, indent=2 if fmt == "json" else None))  # noqa: T201 -- cli prints
