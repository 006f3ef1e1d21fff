"""The command `piimage-smoke`."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import jobs, report, roster, survey
from .scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, FAILED, USAGE = 0, 1, 2
#: Seconds for each part; an emulated processor wants several times as much as a board.
LIMIT = 120.0
_LONGEST = 7 * 86400


def main(argv: Sequence[str] | None = None) -> int:
    """Test the cluster; 0 when all is well, 1 when something failed, 2 when it was called wrongly."""
    options = _options(argv)
    try:
        cluster = roster.load(options.roster)
    except ValueError as error:
        return _usage(str(error))
    me = pwd.getpwuid(os.getuid()).pw_name
    if me != cluster.user:
        return _usage(
            f"this is {me}; run it as {cluster.user}: sudo -iu {cluster.user} piimage-smoke"
        )
    if os.uname().nodename.partition(".")[0] != cluster.head:
        return _usage(
            f"this is {os.uname().nodename}; run it on {cluster.head}, which reaches all nodes"
        )
    found = examine(cluster, options.limit, options.wait, mpi=not options.nodes)
    text = json.dumps(found, indent=1) + "\n"
    if options.output:
        _write(Path(options.output), text)
    most = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    sys.stdout.write(text if options.json else report.table(found, most))
    return OK if found["ok"] else FAILED


def examine(
    cluster: roster.Roster, limit: float, wait: float, *, mpi: bool = True
) -> dict[str, Any]:
    """The report on a cluster, with programs run by MPI or without; every part ends after `limit` seconds."""
    started, began = time.time(), time.monotonic()
    if wait:
        _progress("waiting for all nodes")
        survey.wait(cluster, wait, limit)
    scratch = Scratch(cluster, limit)
    try:
        _progress(f"asking {len(cluster.nodes)} nodes")
        surveyed = survey.survey(cluster, scratch, limit)
        result = None
        if cluster.flavour and mpi:
            result = jobs.Jobs(cluster, surveyed, scratch, limit, _progress).run()
    finally:
        scratch.clear()
    return report.build(cluster, surveyed, result, started, time.monotonic() - began)


def _progress(words: str) -> None:
    """What comes now, for whoever is looking."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{words}\n")


def _usage(words: str) -> int:
    sys.stderr.write(f"piimage-smoke: {words}\n")
    return USAGE


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    Path(file.name).replace(path)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < _LONGEST:
        raise ValueError(text)
    return value


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="piimage-smoke",
        description="Test this cluster: each node by itself, MPI on all of them, and which way it went.",
        epilog="Exit status: 0 all is well, 1 something failed, 2 called wrongly.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--output", metavar="FILE", help="write the report there too, as JSON")
    parser.add_argument(
        "--nodes", action="store_true", help="test the nodes alone: quick, no program is run by MPI"
    )
    parser.add_argument(
        "--limit", type=_seconds, default=LIMIT, metavar="SECONDS",
        help="for each part of the test; default %(default)g",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=_seconds, default=0, metavar="SECONDS",
        help="first wait up to so long for all nodes to answer",
    )  # fmt: skip
    parser.add_argument("--roster", default=roster.PATH, help=argparse.SUPPRESS)
    return parser.parse_args(argv)
