"""`piimage flash`: write cards."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piimage.cli import flash_all, flash_list, flash_shown
from piimage.cli.options import CLUSTER, Quiet, SourceOption

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from piimage.bases.cache import Cache
    from piimage.cli.flash_target import Consent
    from piimage.cluster import Cluster
    from piimage.flash.sources import Source, Sources
    from piimage.flash.writer import Mode


_BY_ID = Path("/dev/disk/by-id")


def flash(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="TARGET",
            help="The card, such as /dev/sdX or a path in /dev/disk/by-id; or a file.",
            readable=False,  # what may not be opened is for the guard to say
        ),
    ] = None,
    *,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            "-n",
            metavar="NODE[=TARGET]",
            help="The node that the card becomes; as NODE=TARGET for several cards at once. "
            "[default: the next one without a card]",
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write this image instead: .img, .xz, .gz, .zst, .zip, .qcow2."
        ),
    ] = None,
    source: SourceOption = CLUSTER,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where the build is. [default: dist/CLUSTER]"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a write that was broken off.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Read the card first, and write what differs.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Write unused blocks as well.")] = False,
    grow: Annotated[
        bool,
        typer.Option(
            "--grow", help="Let the root file system fill the card, not only at first boot."
        ),
    ] = False,
    unmount: Annotated[
        bool, typer.Option("--unmount", help="Unmount what is mounted of the card.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Accept a reason to refuse a device, such as not-removable; may be repeated.",
        ),
    ] = None,
    serial: Annotated[
        str | None, typer.Option(metavar="SERIAL", help="Refuse a card of another serial number.")
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Do not ask; needs `--serial` or a by-id path."),
    ] = False,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Wait for a card for each node that has none, one after another."
        ),
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List what can be written to, and why the rest cannot.")
    ] = False,
    let_go: Annotated[
        bool, typer.Option("--eject", help="Let go of the card once it is good.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")
    ] = False,
    quiet: Quiet = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print what happens as JSON, one object a line.")
    ] = False,
) -> None:
    """Write a node to a card, read all of it back, and put the partition table on it last.

    Example: piimage flash /dev/sdX --node 3
    """
    from piimage.bases.cache import Cache  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.flash_target import Consent, admitted, confirm, release, screen  # noqa: PLC0415 -- start-up time
    from piimage.cli.flash_write import write  # noqa: PLC0415 -- start-up time
    from piimage.flash.several import Job  # noqa: PLC0415 -- start-up time
    from piimage.flash.sources import open_sources  # noqa: PLC0415 -- start-up time

    if list_:
        flash_list.show(json_output=json_output)
        return
    if resume and update:
        raise typer.BadParameter("`--resume` and `--update` are two ways: choose one")
    mode: Mode = "resume" if resume else "update" if update else "fresh"
    progress = progress_for(json_output=json_output, quiet=quiet)
    consent = Consent(allow=tuple(allow or ()), unmount=unmount, serial=serial, yes=yes)
    if every:
        _fits_all(target, node or [], image, consent, dry_run=dry_run)
    pairs = [] if every else _pairs(target, node or [], image)
    cluster = _cluster(source) if image is None else None
    for _, path in pairs:
        screen(path, consent)
    cache = Cache(progress=progress)
    with (
        _turn(
            cache,
            cluster,
            wanted=every or not (node or dry_run),
            waits=flash_shown.waits(quiet=quiet, json_output=json_output),
        ),
        open_sources(cache, full=full, grow=grow, progress=progress) as sources,
    ):
        if every and cluster:
            stack = flash_all.Stack(
                cluster=cluster,
                dist=output or _dist(source, cluster),
                sources=sources,
                consent=consent,
                mode=mode,
                progress=progress,
                json_output=json_output,
                let_go=let_go,
            )
            nodes, known = flash_all.waiting(cluster, node or [])
            stack.write(nodes, target, known)
            return
        jobs = []
        for name, path in pairs:
            chosen = _source(sources, cluster, name, image, output or _dist(source, cluster))
            jobs.append((admitted(path, chosen, consent), chosen))
        confirm(jobs, consent, mode, dry_run=dry_run)
        if dry_run:
            return
        if unmount:
            release(jobs, consent)
        ready = [
            Job(each.device, sources.fitted(chosen, each.device.size)) for each, chosen in jobs
        ]
        error = write(ready, mode, progress, cluster, json_output=json_output, let_go=let_go)
    if error is not None:  # outside the block, which takes every full disk for the cache's
        raise error


def _fits_all(
    target: Path | None,
    nodes: Sequence[str],
    image: Path | None,
    consent: Consent,
    *,
    dry_run: bool,
) -> None:
    """Raise typer's usage error for what does not go with `--all`."""
    if image is not None or dry_run:
        raise typer.BadParameter("`--all` writes nodes: it takes neither `--image` nor `--dry-run`")
    if any("=" in name for name in nodes):
        raise typer.BadParameter("`--all` waits for the cards: name nodes without their targets")
    if target is not None and target.is_file():
        raise typer.BadParameter(f"`--all` writes cards, and `{target}` is a file")
    if (
        consent.yes
        and consent.serial is None
        and not (target and target.parent.resolve() == _BY_ID)
    ):
        raise typer.BadParameter(
            "`--all --yes` needs the reader's path in /dev/disk/by-id, or `--serial`"
        )


def _pairs(
    target: Path | None, nodes: Sequence[str], image: Path | None
) -> list[tuple[str | None, Path]]:
    """Which node goes to which target; raises typer's usage error for what does not fit together."""
    split = [name.partition("=") for name in nodes]
    if target is None:
        if image is not None or not split:
            raise typer.BadParameter("name the card, such as /dev/sdX")
        if not all(path for _, _, path in split):
            raise typer.BadParameter(
                "name the card of each node: `--node 3=/dev/sdb --node 4=/dev/sdc`"
            )
        return [(name, Path(path)) for name, _, path in split]
    if any(equals for _, equals, _ in split):
        raise typer.BadParameter("`--node NODE=TARGET` takes no other target")
    if image is not None and split:
        raise typer.BadParameter("`--image` and `--node` are two sources: choose one")
    if len(split) > 1:
        raise typer.BadParameter("one card becomes one node: `--node 3=/dev/sdb --node 4=/dev/sdc`")
    return [(split[0][0] if split else None, target)]


def _cluster(source: Path) -> Cluster:
    from piimage.cli.loading import load_built  # noqa: PLC0415 -- start-up time

    return load_built(source)


def _turn(
    cache: Cache, cluster: Cluster | None, *, wanted: bool, waits: Callable[[str], None] | None
) -> AbstractContextManager[None]:
    """Our turn to choose which node comes next: two that choose at the same time would make two cards of it."""
    if cluster is None or not wanted:
        return nullcontext()
    place = hashlib.sha256(bytes(cluster.source.resolve())).hexdigest()[:16]
    return cache.lock(f"next-card-{place}", waits=waits)


def _dist(source: Path, cluster: Cluster | None) -> Path:
    return source.parent / "dist" / (cluster.name if cluster else "")


def _source(
    sources: Sources, cluster: Cluster | None, name: str | None, image: Path | None, dist: Path
) -> Source:
    if image is not None or cluster is None:
        return sources.of_file(image or Path())
    from piimage.cli.loading import chosen  # noqa: PLC0415 -- start-up time
    from piimage.flash.receipt import next_node  # noqa: PLC0415 -- start-up time

    node = next_node(cluster) if name is None else chosen(cluster, [name])[0]
    return sources.of_node(dist, node.name)
