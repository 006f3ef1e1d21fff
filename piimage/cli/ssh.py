"""`piimage ssh`: log in to a node of a rehearsal that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from piimage.cli import completion
from piimage.cli.options import CLUSTER, SourceOption


def ssh(
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE", autocompletion=completion.nodes, help="The node, by number or name."
        ),
    ],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND...", help="What to run there instead of a shell."),
    ] = None,
    *,
    source: SourceOption = CLUSTER,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where the images are. [default: dist/CLUSTER]"
        ),
    ] = None,
) -> None:
    """Log in to a node while `piimage boot` runs it, as the cluster's first user.

    `piimage boot --all --keep` leaves a cluster up for it. Example: piimage ssh node1 uptime
    """
    from piimage.boot import place  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import chosen, load  # noqa: PLC0415 -- start-up time
    from piimage.errors import PiimageError  # noqa: PLC0415 -- start-up time
    from piimage.progress import Quiet  # noqa: PLC0415 -- start-up time
    from piimage.run import become  # noqa: PLC0415 -- start-up time

    cluster = load(source, Quiet())
    (wanted,) = chosen(cluster, [node])
    directory = output or source.parent / "dist" / cluster.name
    home = place.directory(directory, wanted)
    config = home / place.SSH_CONFIG
    if not place.in_use(home) or not config.is_file():
        raise PiimageError(
            f"no rehearsal of `{wanted.name}` is running in `{directory}`",
            hint="`piimage boot --all --keep` leaves the cluster up until Ctrl-C",
        )
    become(["ssh", "-F", config, wanted.name, *(command or ())])
