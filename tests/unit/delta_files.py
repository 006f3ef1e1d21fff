"""What a test may take for granted of an entry of a delta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.delta import File

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.delta import Entry


def file_at(entries: Mapping[str, Entry], path: str) -> File:
    """The entry at `path`, which is a file."""
    entry = entries[path]
    assert isinstance(entry, File), f"{path}: {entry}"
    return entry
