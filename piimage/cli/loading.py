"""Loading cluster.yaml for a command: warnings and notes are shown, errors are raised."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.progress import Progress


def load(source: Path, progress: Progress) -> Cluster:
    """The resolved cluster; raises `ConfigError` with every mistake that it found."""
    from piimage import resolve  # noqa: PLC0415 -- start-up time
    from piimage.bases.known import known_facts, known_names  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import colour_wanted  # noqa: PLC0415 -- start-up time
    from piimage.report import render_text  # noqa: PLC0415 -- start-up time

    loaded = resolve.load(
        source, env=os.environ, facts=known_facts, bases=known_names(source.parent)
    )
    if loaded.diagnostics:
        progress.say(render_text(loaded.diagnostics, colour=colour_wanted()).rstrip("\n"))
    return loaded.cluster
