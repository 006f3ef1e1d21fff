"""The firmware partition's files in a directory and back, for engines that cannot mount a FAT."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from piimage.bases.foreign import refuse_foreign_programs
from piimage.disk import fat

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: An initramfs is no larger than this; nor is anything else that a firmware partition needs.
_LIMIT = 512 << 20


def take_out(image: Path, start: int, directory: Path) -> Mapping[str, str]:
    """Write the files of the FAT at byte `start` into `directory`; return `{path: sha256}`, paths with a `/` first."""
    facts = fat.list_tree(image, start)
    names = [path for path, fact in facts.items() if fact.kind == "file"]
    for path, fact in facts.items():
        if fact.kind == "dir":
            (directory / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    found = {}
    for path, content in fat.read_files(image, start, names, limit=_LIMIT).items():
        (directory / path.lstrip("/")).write_bytes(content)
        found[path] = hashlib.sha256(content).hexdigest()
    return found


def bring_back(image: Path, start: int, directory: Path, before: Mapping[str, str]) -> list[str]:
    """Write what changed in `directory` since `take_out` into the FAT, take away what is gone; return the paths.

    Raises `ToolFailedError` for an initramfs that holds programs of this machine, `ImageError` when there is no room.
    """
    now = {f"/{p.relative_to(directory)}": p for p in sorted(directory.rglob("*")) if p.is_file()}
    changed = {}
    for path, place in now.items():
        content = place.read_bytes()
        if hashlib.sha256(content).hexdigest() != before.get(path):
            changed[path] = content
    for path, content in changed.items():
        if path.rpartition("/")[2].startswith("init"):
            refuse_foreign_programs(path, content)
    gone = sorted(before.keys() - now.keys())
    if gone:
        fat.remove_files(image, start, gone)
    if changed:
        fat.write_files(image, start, changed)
    return [*changed, *gone]
