"""`piimage state`: make the cluster's state, carry it to another machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The cluster's keys and hashes, kept beside cluster.yaml.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Source = Annotated[
    Path, typer.Option("--cluster", "-c", metavar="CLUSTER.YAML", help="The cluster's file.")
]


@app.command()
def init(*, cluster: _Source = Path("cluster.yaml")) -> None:
    """Make the state now rather than at the first build.

    Example: piimage state init
    """
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import load  # noqa: PLC0415 -- start-up time
    from piimage.state import state  # noqa: PLC0415 -- start-up time

    made = state.init(load(cluster, progress_for()))
    print(f"made {made.path}; keep a copy: `piimage state export FILE`")  # noqa: T201 -- cli prints


@app.command(short_help="Write the state to a file: a backup, as secret as the cards.")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The tar file to write (0600).")],
    *,
    cluster: _Source = Path("cluster.yaml"),
) -> None:
    """Write the state to a file: whoever has it can make cards of this cluster.

    Example: piimage state export pico5.state.tar
    """
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import load  # noqa: PLC0415 -- start-up time
    from piimage.state import state  # noqa: PLC0415 -- start-up time

    state.export(load(cluster, progress_for()), file)
    print(f"wrote {file}; it holds private keys")  # noqa: T201 -- cli prints


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `state export` wrote.")],
    *,
    cluster: _Source = Path("cluster.yaml"),
) -> None:
    """Unpack an exported state beside cluster.yaml.

    Example: piimage state import pico5.state.tar
    """
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import load  # noqa: PLC0415 -- start-up time
    from piimage.state import state  # noqa: PLC0415 -- start-up time

    made = state.import_(load(cluster, progress_for()), file)
    print(f"unpacked to {made.path}")  # noqa: T201 -- cli prints


@app.command(short_help="Ask GitHub and Launchpad again for users' keys.")
def refresh(*, cluster: _Source = Path("cluster.yaml")) -> None:
    """Ask GitHub and Launchpad again for the keys of `gh:` and `lp:` names; all of them, or nothing changes.

    Example: piimage state refresh
    """
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import load  # noqa: PLC0415 -- start-up time
    from piimage.state import state  # noqa: PLC0415 -- start-up time

    progress = progress_for()
    found = load(cluster, progress)
    before, now = state.open_state(found).refresh(found, os.environ, progress)
    for name, pin in now.items():
        old = set(before[name].keys) if name in before else set()
        added, gone = len(set(pin.keys) - old), len(old - set(pin.keys))
        count = f"{len(pin.keys)} key{'s' * (len(pin.keys) != 1)}"
        print(f"{name}: {count}, {added} new, {gone} gone")  # noqa: T201 -- cli prints
    if not now:
        print("no `gh:` or `lp:` names in `ssh_keys`")  # noqa: T201 -- cli prints
