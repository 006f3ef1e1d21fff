"""File systems of an image that are mounted beside the root and the firmware's, such as Fedora's /boot."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.disk.ext4 import open_ext4
from piimage.distros import boot_loader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.facts import FileFact, PartitionTable

_EXT = ("ext2", "ext3", "ext4")
#: Kept: names at the top, and with content the entries of the boot loader.
_LISTED = (("/", 1), (f"/{boot_loader.ENTRIES}", 1), ("/loader", 1))
_LIMIT = 1 << 16


def places(mounts: Mapping[str, int], firmware: str, table: PartitionTable) -> dict[str, int]:
    """Those of `mounts` that are ext4 file systems of their own: mount point -> partition number."""
    found = {}
    for place, number in mounts.items():
        filesystem = table.partition(number).filesystem
        if place not in ("/", firmware) and filesystem is not None and filesystem.type in _EXT:
            found[place] = number
    return found


def files(image: Path, table: PartitionTable, found: Mapping[str, int]) -> dict[str, FileFact]:
    """What of these file systems is kept, by path of the running system; raises `ImageError`."""
    facts: dict[str, FileFact] = {}
    for place, number in found.items():
        with open_ext4(image, table.partition(number).start) as ext4:
            listing: dict[str, FileFact] = {}
            for top, depth in _LISTED:
                listing |= ext4.list_tree([top], depth)
            texts = [
                path
                for path, fact in listing.items()
                if fact.kind == "file" and path.startswith(f"/{boot_loader.ENTRIES}/")
            ]
            contents = ext4.read_files(texts, limit=_LIMIT)
        facts |= {
            place + ("" if path == "/" else path): replace(fact, content=contents.get(path))
            for path, fact in listing.items()
        }
    return facts
