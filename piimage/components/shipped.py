"""Files of piimage/guest, which nodes get as they are: they run there and are never imported here."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_GUEST = "guest"


def shipped(directory: str) -> Mapping[str, bytes]:
    """Name -> content of every file in a directory below piimage/guest, by name."""
    found = files("piimage") / _GUEST / directory
    entries = sorted(found.iterdir(), key=lambda entry: entry.name)
    return {
        entry.name: entry.read_bytes()
        for entry in entries
        if entry.is_file() and not entry.name.endswith(".pyc")
    }
