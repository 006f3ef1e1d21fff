"""`piimage card`: which node a card is, and whether it is current."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piimage.cli.console import progress_for
from piimage.cli.lines import visible
from piimage.cli.options import Json

if TYPE_CHECKING:
    from piimage.cluster import Cluster
    from piimage.flash.card import Verdict
    from piimage.flash.device import Device
    from piimage.label import CardLabel
    from piimage.state.cards import CardRecord


def card(
    device: Annotated[
        Path,
        typer.Argument(
            metavar="DEVICE",
            help="The card, such as /dev/sdX, or an image file.",
            readable=False,  # typer's own words would be those of a wrong command line
        ),
    ],
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--cluster",
            "-c",
            metavar="CLUSTER.YAML",
            help="The cluster's file. [default: cluster.yaml, if there is one]",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where the images are. [default: dist/CLUSTER]"
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Tell which node of which cluster a card holds, from which build, and whether that is the newest.

    Reads the card without mounting it. Example: piimage card /dev/sdX
    """
    from piimage.errors import ImageError  # noqa: PLC0415 -- start-up time
    from piimage.flash.card import read_label, read_unfinished  # noqa: PLC0415 -- start-up time
    from piimage.flash.device import read_device  # noqa: PLC0415 -- start-up time

    found = read_device(device)
    label, unfinished = read_label(device), read_unfinished(device)
    cluster = _cluster(source, json_output=json_output)
    verdict = _verdict(label, cluster, output) if label else None
    record = _record(label, cluster)
    if json_output:
        document: dict[str, Any] = {
            "device": found.document(),
            **dict.fromkeys(("cluster", "node", "number", "build", "variant")),
            **(asdict(label) if label else {}),
            "current": verdict.current if verdict else None,
            "why": verdict.why if verdict else None,
            "unfinished": asdict(unfinished) if unfinished else None,
            "recorded": asdict(record) if record else None,
        }
        print(json.dumps(document, indent=2))  # noqa: T201 -- cli prints
    elif unfinished:
        words = f"half-written as {unfinished.title}: `piimage flash` finishes or replaces it"
        print(visible(words))  # noqa: T201 -- cli prints
    elif label:
        print("\n".join(map(visible, _lines(found, label, verdict, record))))  # noqa: T201 -- cli prints
    if not label and not unfinished:
        raise ImageError(f"`{device}` holds no node: it has no `piimage.json` on a FAT partition")


def _lines(
    device: Device, label: CardLabel, verdict: Verdict | None, record: CardRecord | None
) -> list[str]:
    """What a person wants to know, one fact a line."""
    current = {True: "yes", False: "no", None: "unknown"}[verdict.current if verdict else None]
    lines = [
        f"card      {device.title}",
        f"cluster   {label.cluster}",
        f"node      {label.node} (number {label.number})",
        f"build     {label.build}",
        f"current   {current}" + (f": {verdict.why}" if verdict else ""),
    ]
    if record is not None:
        same = "this build" if record.build == label.build else f"build {record.build}"
        lines.append(f"recorded  {record.node} was written {record.written} from {same}")
    return lines


def _cluster(source: Path | None, *, json_output: bool) -> Cluster | None:
    """The cluster to compare with: one that was named, or the one of this directory."""
    from piimage.cli.loading import load_all  # noqa: PLC0415 -- start-up time

    path = source or Path("cluster.yaml")
    if source is None and not path.exists():
        return None
    return load_all(path, progress_for(json_output=json_output), check_secrets=False).cluster


def _verdict(label: CardLabel, cluster: Cluster | None, output: Path | None) -> Verdict:
    from piimage.flash.card import Verdict, judge  # noqa: PLC0415 -- start-up time

    if cluster is None:
        return Verdict(None, "there is no cluster.yaml to compare it with")
    path = (output or cluster.source.parent / "dist" / cluster.name) / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError):
        manifest = {}
    return judge(label, cluster.name, manifest if isinstance(manifest, dict) else {})


def _record(label: CardLabel | None, cluster: Cluster | None) -> CardRecord | None:
    """What the state knows of the node that the card is, if this cluster has a state."""
    from piimage.state import state  # noqa: PLC0415 -- start-up time

    if label is None or cluster is None or label.cluster != cluster.name:
        return None
    if not state.location(cluster.source).exists():
        return None
    known = state.open_state(cluster, create=False).cards()
    return next((record for record in known if record.node == label.node), None)
