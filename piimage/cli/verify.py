"""`piimage verify`: proof that an image or a card holds what was promised."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piimage.cli.options import Json, Quiet, node_option

if TYPE_CHECKING:
    from piimage.bases.store import Store
    from piimage.cluster import Cluster
    from piimage.progress import Progress
    from piimage.verify.planning import Planning
    from piimage.verify.verify import Verdict


def verify(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="A build's directory, an image, a stamp, or the device of a card.",
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="CLUSTER.YAML",
            help="The cluster's file, for what a build would make now. [default: cluster.yaml if it is there]",
            show_default=False,
        ),
    ] = None,
    *,
    node: Annotated[
        list[str] | None,
        node_option("The node that it should be; of a build's directory, may be repeated."),
    ] = None,
    dist: Annotated[
        Path | None,
        typer.Option(
            "--dist",
            metavar="DIR",
            help="The build that a card or image is of. [default: around it, or dist/CLUSTER]",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML, for CI.")
    ] = None,
    sarif: Annotated[
        Path | None,
        typer.Option("--sarif", metavar="FILE", help="Also write SARIF 2.1.0, for code scanning."),
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Also print annotations for GitHub Actions.")
    ] = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Read an image or card again and check that it holds what was promised. Nothing is written to it.

    Example: piimage verify dist/pico5
    """
    from piimage import __version__  # noqa: PLC0415 -- start-up time
    from piimage.bases.store import Store  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.disk.atomic import write_bytes  # noqa: PLC0415 -- start-up time
    from piimage.errors import ImageError  # noqa: PLC0415 -- start-up time
    from piimage.verify import formats  # noqa: PLC0415 -- start-up time

    progress = progress_for(json_output=json_output, quiet=quiet)
    if not target.exists():
        raise ImageError(
            f"`{target}` is not there", hint="give a build's directory, an image or a device"
        )
    store = Store(progress=progress)
    verdicts = _verdicts(target, source, node or [], dist, store, progress)
    if junit is not None:
        write_bytes(junit, formats.junit(verdicts), mode=0o644)
    if sarif is not None:
        write_bytes(sarif, formats.sarif(verdicts, __version__), mode=0o644)
    lines = [*formats.github(verdicts)] if github else []
    if json_output:
        lines.append(json.dumps([verdict.to_json() for verdict in verdicts], indent=1))
    else:
        lines += formats.text(verdicts)
    print("\n".join(lines))  # noqa: T201 -- cli prints
    _judge(verdicts)


def _judge(verdicts: list[Verdict]) -> None:
    """Raise `VerifyError` unless all is well."""
    from piimage.errors import VerifyError  # noqa: PLC0415 -- start-up time

    bad = [verdict for verdict in verdicts if verdict.findings]
    if bad:
        count = sum(len(verdict.findings) for verdict in bad)
        rule = bad[0].findings[0].rule
        raise VerifyError(
            f"{count} finding{'s' * (count != 1)} on {len(bad)} of {len(verdicts)} verified",
            hint=f"docs/rules/{rule}.md says why the first one matters and how it is mended",
        )


def _verdicts(  # noqa: PLR0917 -- each is of a type of its own
    target: Path,
    source: Path | None,
    names: list[str],
    dist: Path | None,
    store: Store,
    progress: Progress,
) -> list[Verdict]:
    from piimage.errors import ConfigError, PiimageError  # noqa: PLC0415 -- start-up time
    from piimage.verify.known import Builds  # noqa: PLC0415 -- start-up time
    from piimage.verify.subjects import Subjects  # noqa: PLC0415 -- start-up time
    from piimage.verify.verify import verify as verified  # noqa: PLC0415 -- start-up time

    cluster = _cluster(source, progress)
    directory = _directory(target, dist, cluster)
    builds = Builds(directory, store)
    if target.is_dir() and not builds.manifest:
        raise PiimageError(
            f"nothing was built in `{target}`", hint="`piimage build --all` builds all nodes"
        )
    told = builds.manifest.get("cluster")
    if source is None and cluster is not None and told not in (None, cluster.name):
        progress.say(f"`cluster.yaml` is of cluster `{cluster.name}`, not `{told}`: it is left out")
        cluster = None
    if cluster is not None:
        names = [
            cluster.node(n).name if n.isdecimal() and int(n) < len(cluster.nodes) else n
            for n in names
        ]
    if len(names) > 1 and not target.is_dir():
        raise ConfigError("an image or card is of one node, and `--node` names several")
    with store.scratch() as scratch:
        planning = _planning(cluster, store, scratch, progress)
        subjects = Subjects(builds, planning, scratch, progress)
        if target.is_dir():
            return verified(subjects.of_directory(names), progress)
        return verified([subjects.of_file(target, names[0] if names else "")], progress)


def _cluster(source: Path | None, progress: Progress) -> Cluster | None:
    """The cluster of the file that was named, or of cluster.yaml if that is there."""
    from piimage.cli.loading import load_all  # noqa: PLC0415 -- start-up time

    path = source or Path("cluster.yaml")
    if source is None and not path.exists():
        return None
    return load_all(path, progress, check_secrets=False).cluster


def _directory(target: Path, dist: Path | None, cluster: Cluster | None) -> Path | None:
    """The build's directory: what was said, where the image lies, or where `piimage build` puts it."""
    if dist is not None or target.is_dir():
        return dist or target
    near = [target.resolve().parent, target.resolve().parent.parent]
    if cluster is not None:
        near.append(cluster.source.parent / "dist" / cluster.name)
    return next((path for path in near if (path / "manifest.json").is_file()), None)


def _planning(
    cluster: Cluster | None, store: Store, scratch: Path, progress: Progress
) -> Planning | None:
    from piimage.state.peek import peek  # noqa: PLC0415 -- start-up time
    from piimage.verify.planning import Planning  # noqa: PLC0415 -- start-up time

    if cluster is None:
        return None
    secrets, reason = peek(cluster, cluster.source, os.environ, scratch)
    if secrets is None:
        progress.say(f"what a build would now write on each node is not compared: {reason}")
    return Planning(cluster, store, secrets)
