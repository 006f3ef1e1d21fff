"""File systems of an image that are mounted beside the root and the firmware's, such as Fedora's /boot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.disk.rootfs import open_tree, readable
from piimage.distros import boot_loader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.facts import FileFact, PartitionTable

#: Kept: names at the top, and with content the entries of the boot loader.
_LISTED = (("/", 1), (f"/{boot_loader.ENTRIES}", 1), ("/loader", 1))
_LIMIT = 1 << 16


def places(mounts: Mapping[str, int], firmware: str, table: PartitionTable) -> dict[str, int]:
    """Those of `mounts` that are Linux file systems of their own: mount point -> partition number."""
    return {
        place: number
        for place, number in mounts.items()
        if place not in ("/", firmware) and readable(table.partition(number))
    }


def files(image: Path, table: PartitionTable, found: Mapping[str, int]) -> dict[str, FileFact]:
    """What of these file systems is kept, by path of the running system; raises `ImageError`."""
    facts: dict[str, FileFact] = {}
    for place, number in found.items():
        with open_tree(image, table.partition(number).start) as tree:
            listing: dict[str, FileFact] = {}
            for top, depth in _LISTED:
                listing |= tree.list_tree([top], depth)
            texts = [
                path
                for path, fact in listing.items()
                if fact.kind == "file" and path.startswith(f"/{boot_loader.ENTRIES}/")
            ]
            contents = tree.read_files(texts, limit=_LIMIT)
        facts |= {
            place + ("" if path == "/" else path): replace(fact, content=contents.get(path))
            for path, fact in listing.items()
        }
    return facts
