"""What is known of bases without opening one: for `validate`, which must be quick and change nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from piimage.bases.cache import cache_root
from piimage.bases.catalog import entries
from piimage.facts import Facts

if TYPE_CHECKING:
    from pathlib import Path

#: All that checks of a cluster.yaml ask of a base's files.
_ASKED = ("/etc/passwd", "/etc/group")
#: Where the cache has an empty file for each base that variants from elsewhere were built of.
ELSEWHERE = "elsewhere"
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)


def known_names(beside: Path | None = None) -> frozenset[str]:
    """Names that a cluster.yaml in `beside` may call its base: of the catalog, bases here, and those of variants."""
    root = cache_root()
    try:
        here = {path.parent.name for path in (root / "bases").glob("*/base.json")}
        here |= {path.name for path in (root / ELSEWHERE).glob("*")}
    except OSError:
        here = set()
    return frozenset({*entries(beside), *here})


def known_facts(name: str) -> Facts | None:
    """Facts of a base that is here, with the files of accounts only; None for any other.

    They may be older than the image, and nothing is read again here: good for hints before a build,
    which looks for itself.
    """
    if "/" in name:
        return None
    try:
        data: dict[str, Any] = json.loads(
            (cache_root() / "bases" / name / "facts.json").read_bytes()
        )
        files = {path: data["files"][path] for path in _ASKED if path in data["files"]}
        return Facts.from_json({**data, "files": files, "units": {}})
    except _BROKEN:
        return None
