"""`piimage init`: a first cluster.yaml from few questions."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from piimage.cluster import Cluster
    from piimage.init.starter import Answers


def init(
    path: Annotated[Path, typer.Argument(metavar="CLUSTER.YAML", help="The file to write.")] = Path(
        "cluster.yaml"
    ),
    *,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the cluster. [default: the directory's]"),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", "-n", metavar="COUNT", help="How many boards. [default: 4]"),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="The first user. [default: you]")
    ] = None,
    ssh_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Who may log in: a .pub file, gh:NAME, lp:NAME or none. [default: your own]",
        ),
    ] = None,
    subnet: Annotated[
        str | None,
        typer.Option(metavar="NETWORK", help="Of the wire: 10.1.10.0/24... [default: a free one]"),
    ] = None,
    wifi: Annotated[
        str | None, typer.Option(metavar="SSID", help="The access point. [default: no Wi-Fi]")
    ] = None,
    country: Annotated[
        str | None,
        typer.Option(metavar="CC", help="Where the radio is: IT... [default: by the time zone]"),
    ] = None,
    psk: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="Wi-Fi key: env:NAME or file:PATH. [default: env:PI_WIFI_PSK]"
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The image to start from. [default: debian-13]"),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(metavar="BOARD", help="Which boards: pi3, pi4... [default: left open]"),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Of all nodes. [default: this machine's]")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing, take the defaults.")
    ] = False,
) -> None:
    """Write a commented cluster.yaml from a few answers: valid, and never over a file that is there.

    Example: piimage init --yes --nodes 5
    """
    from piimage.cli.interview import Given, Interview  # noqa: PLC0415 -- start-up time
    from piimage.cli.questions import questions  # noqa: PLC0415 -- start-up time
    from piimage.init import starter, surroundings  # noqa: PLC0415 -- start-up time
    from piimage.resolve import DEFAULT_BASE  # noqa: PLC0415 -- start-up time

    starter.refuse_existing(path)
    given = Given(
        name=name,
        nodes=nodes,
        user=user,
        ssh_key=ssh_key,
        subnet=subnet,
        wifi=wifi,
        country=country,
        psk=psk,
    )
    interview = Interview(questions(yes=yes), path, os.environ)
    zone = timezone or surroundings.timezone()
    answers = interview.answers(given, base=base or DEFAULT_BASE, board=board, zone=zone)
    _tell(path, answers, starter.write(path, answers))


def _tell(path: Path, answers: Answers, cluster: Cluster) -> None:
    """What was written on stdout; what it rests on, and what comes next, on stderr."""
    from piimage.bases.known import known_facts  # noqa: PLC0415 -- start-up time
    from piimage.resolve import DEFAULT_BASE  # noqa: PLC0415 -- start-up time

    print(f"wrote {path}: {_sentence(cluster)}")  # noqa: T201 -- cli prints
    user = cluster.users[0].name
    if answers.ssh_keys:
        _say(f"login: `{user}`, with {answers.ssh_keys[0].removeprefix('file:')}")
    else:
        _say(f"login: `{user}`, with the cluster's own key; yours goes under `ssh_keys`")
    wifi = answers.wifi
    if wifi and wifi.psk.startswith("file:"):
        _say(
            f"Wi-Fi: the key of `{wifi.ssid}` is in {wifi.psk.removeprefix('file:')}, which is secret"
        )
    if wifi and wifi.psk.startswith("env:"):
        variable = wifi.psk.removeprefix("env:")
        _say(
            f"next: `read -rs {variable}; export {variable}` takes the passphrase of `{wifi.ssid}`"
        )
    file = "" if path == Path("cluster.yaml") else f" {path}"
    _say(f"next: read the file, change it; `piimage validate{file}` checks it")
    base = cluster.head.role.base
    if base == DEFAULT_BASE and known_facts(base) is None:
        _say(f"next: `piimage base make {base}`, once; `piimage doctor` says what it needs here")
    _say(
        f"next: `piimage build{file} --all`, then `piimage boot{file} --all` before a card is touched"
    )


def _sentence(cluster: Cluster) -> str:
    first, last = cluster.nodes[0], cluster.nodes[-1]
    if first is last:
        return f"`{cluster.name}`, 1 node ({first.name}, {first.address.ip})"
    return (
        f"`{cluster.name}`, {len(cluster.nodes)} nodes ({first.name} to {last.name},"
        f" {first.address.ip} to {last.address.ip}), head {cluster.head.name}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 -- cli prints
