"""`piimage export`: files by which other tools know the cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piimage.cli import completion
from piimage.cli.options import CLUSTER, Json, SourceOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.cluster import Cluster

_FORMATS = "ansible|ssh-config|known-hosts|hosts|pssh|clush|rpi-imager|svg|all"


def export(
    formats: Annotated[
        list[str],
        typer.Argument(
            metavar=_FORMATS,
            autocompletion=completion.formats,
            help="What to write; several may be named.",
        ),
    ],
    *,
    source: SourceOption = CLUSTER,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to. [default: dist/CLUSTER/export]"
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Where images are. [default: dist/CLUSTER]"),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="HOST", help="Name or address of the head, as seen from here. [default: found]"
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Write files by which other tools know the cluster, or a picture of it.

    For ssh, Ansible, parallel-ssh, ClusterShell and Raspberry Pi Imager; each also writes what it needs of the others.

    Example: piimage export ssh-config svg
    """
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import load_all  # noqa: PLC0415 -- start-up time
    from piimage.export.files import FORMATS, Export  # noqa: PLC0415 -- start-up time

    strange = [name for name in formats if name not in (*FORMATS, "all")]
    if strange:
        raise typer.BadParameter(f"`{strange[0]}` is not a format; one of {', '.join(FORMATS)}")
    progress = progress_for(json_output=json_output)
    cluster = load_all(source, progress, check_secrets=False).cluster
    output = images or source.parent / "dist" / cluster.name
    files = Export(
        cluster=cluster,
        directory=directory or output / "export",
        output=output,
        progress=progress,
        door=_host(head),
    )
    made = files.write(files.possible() if "all" in formats else formats)
    if json_output:
        print(json.dumps({"files": {name: str(path) for name, path in made.items()}}, indent=2))  # noqa: T201 -- cli prints
        return
    for path in made.values():
        print(_short(path))  # noqa: T201 -- cli prints
    _advise(cluster, made, formats)


def _host(head: str | None) -> str | None:
    """The value of `--head`; what could not be a host name would end up as a word of ssh's own."""
    from piimage.cli.fields import checked  # noqa: PLC0415 -- start-up time
    from piimage.spec.fields import server  # noqa: PLC0415 -- start-up time

    return None if head is None else checked(server, "--head")(head)


def _short(path: Path) -> str:
    """As seen from here, if it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _advise(cluster: Cluster, made: Mapping[str, Path], formats: list[str]) -> None:
    """How to use what was asked for, on stderr."""
    node = cluster.nodes[-1].name
    config = _short(made["ssh-config"]) if "ssh-config" in made else ""
    words = {
        "ssh-config": f"`ssh -F {config} {node}`",
        "ansible": f"`ansible -i {_short(made['ansible'])} all -m ping`" if "ansible" in made else "",
        "pssh": f"`parallel-ssh -h {_short(made['pssh'])} -x '-F {config}' -i uptime`" if "pssh" in made else "",
        "clush": f"copy {_short(made['clush'])} to ~/.config/clustershell/groups.d/, then"
        f" `clush -s {cluster.name} -o '-F {config}' -a uptime`" if "clush" in made else "",
        "rpi-imager": f"`rpi-imager --repo {_short(made['rpi-imager'])}`" if "rpi-imager" in made else "",
    }  # fmt: skip
    for name in formats:
        if words.get(name):
            print(f"{name}: {words[name]}", file=sys.stderr)  # noqa: T201 -- cli prints
