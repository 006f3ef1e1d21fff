"""All that is in an image, read back with debugfs and mtools: what differs in two is what a build has changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phony import ROOT_START
from readback import content, fat_content, fat_names, stats

from piimage.disk.ext4 import list_tree

if TYPE_CHECKING:
    from pathlib import Path

_FIRMWARE = "/boot/firmware"


@dataclass(frozen=True)
class Seen:
    """What is at a path; `sha256` of what a file holds. On FAT, which has neither, mode and owner are 0."""

    kind: str
    mode: int
    uid: int
    gid: int
    target: str
    sha256: str


def tree(image: Path, scratch: Path) -> dict[str, Seen]:
    """Path -> what is there, in both file systems."""
    found = {}
    for path, seen in stats(image, sorted(list_tree(image, ROOT_START, ["/"]))).items():
        assert seen is not None, path
        digest = _sha256(content(image, path, scratch)) if seen.kind == "file" else ""
        found[path] = Seen(
            seen.kind, seen.mode & 0o7777, seen.uid, seen.gid, seen.target or "", digest
        )
    for name in fat_names(image):
        if not name.endswith("/"):
            digest = _sha256(fat_content(image, name))
            found[f"{_FIRMWARE}/{name}"] = Seen("file", 0, 0, 0, "", digest)
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
