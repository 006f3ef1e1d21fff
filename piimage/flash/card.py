"""Which node a card or an image is: from the label on its firmware partition, and from the journal of a broken write.

Nothing is mounted; what is read may come from anybody.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piimage.artifact import FORMATS
from piimage.disk.fat_reader import Fat
from piimage.disk.table import read_table
from piimage.disk.window import window
from piimage.errors import ImageError, MissingToolError
from piimage.flash.journal import read_journal
from piimage.host import by_sudo
from piimage.label import NAME, decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from piimage.flash.journal import Journal
    from piimage.label import CardLabel

#: A label has some hundred bytes.
_MOST = 1 << 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a card is what would be written now: None where that is not known, and `why` in words."""

    current: bool | None
    why: str


def read_label(path: Path) -> CardLabel | None:
    """The label of a card or image; None for one that has none, whatever else it holds.

    Raises `MissingToolError` where this user may not read it, and `ImageError` where it cannot be read.
    """
    with _reading(path):
        try:
            table = read_table(path)
        except ImageError:
            return None
        systems = [p for p in table.partitions if p.filesystem and p.filesystem.type == "vfat"]
        labels = (_label_at(path, partition.start) for partition in systems)
        return next((label for label in labels if label), None)


def _label_at(path: Path, start: int) -> CardLabel | None:
    with window(path, start) as source:
        try:
            fat = Fat(source)
            entry = fat.find(NAME)
            small = entry is not None and entry.size <= _MOST
            return decode(fat.content(entry)) if entry is not None and small else None
        except ImageError:
            return None


def read_unfinished(path: Path) -> Journal | None:
    """The journal of a write to this card that did not come to its end; None if there is none.

    Raises as `read_label` does.
    """
    with _reading(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_journal(fd)
        finally:
            os.close(fd)


def judge(label: CardLabel, cluster: str, manifest: Mapping[str, Any]) -> Verdict:
    """Whether a card of `cluster` is of the newest build in a directory of artifacts, by its manifest."""
    if label.cluster != cluster:
        return Verdict(None, f"it is of another cluster than `{cluster}`")
    builds = newest(manifest, label.node)
    if not builds:
        return Verdict(None, f"there is no build of `{label.node}` to compare it with")
    if label.build in builds:
        return Verdict(True, "it is of the newest build")
    return Verdict(False, f"the newest build is {', '.join(sorted(builds))}")


def newest(manifest: Mapping[str, Any], node: str) -> frozenset[str]:
    """The builds of a node that a directory of artifacts holds, by its manifest; none if it was not built."""
    known = manifest.get("nodes", {}).get(node) or {}
    return frozenset(known[kind] for kind in (*FORMATS, "stamp") if kind in known)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Errors of a device that may not or cannot be read, for the user."""
    if path.exists() and not os.access(path, os.R_OK):
        raise MissingToolError(
            f"`{path}` may not be read by this user",
            hint=f"run piimage with sudo: `{by_sudo()} ...`",
        )
    try:
        yield
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise ImageError(f"cannot read `{path}`: {words}") from error
