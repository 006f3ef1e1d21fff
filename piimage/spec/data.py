"""Where data files lie: a directory beside cluster.yaml goes before what ships with piimage."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def data_dirs(kind: str, beside: Path | None = None) -> tuple[Path, ...]:
    """Directories that may hold `kind` (`profiles`, `overlays`), the first to ask first.

    `beside` is the directory of cluster.yaml. Shipped data lie in the wheel as
    `piimage/_data/KIND`, in a checkout as `KIND` at its top. Each directory is given once, if it
    exists.
    """
    places = [_PACKAGE / "_data" / kind, _PACKAGE.parent / kind]
    if beside is not None:
        places.insert(0, beside / kind)
    found = {place.resolve(): place for place in reversed(places) if place.is_dir()}
    return tuple(reversed(found.values()))


def is_shipped(path: Path) -> bool:
    """Whether a data file came with piimage."""
    shipped = (_PACKAGE / "_data", _PACKAGE.parent / "profiles", _PACKAGE.parent / "overlays")
    return any(path.resolve().is_relative_to(place) for place in shipped)
