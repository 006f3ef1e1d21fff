"""What a device holds, as blkid and sfdisk see it: to be shown, and to know somebody's volume from a card."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.errors import ImageError
from piimage.flash.card import read_label
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: What cards have when they are new or have been in a Pi; anything else is somebody's.
_USUAL = {"vfat", "exfat", "ext2", "ext3", "ext4", "swap"}
#: What cards over Fedora Server have besides.
_OURS = {"LVM2_member", "xfs"}
#: blkid(8): nothing found; more than one signature, which contradict each other.
_NOTHING, _AMBIVALENT = 2, 8
_SECONDS = 20
#: Types of extended partitions: their content is other partitions.
_CONTAINERS = {"5", "f", "85"}


@dataclass(frozen=True, slots=True)
class Content:
    """One partition (`number`; 0: the whole device) and the signature in it: `type` as blkid names it."""

    number: int
    size: int
    type: str
    label: str = ""

    @property
    def foreign(self) -> bool:
        """Whether no card for a Pi would have it: a volume of LVM, RAID, ZFS, an encrypted or foreign system."""
        return bool(self.type) and self.type not in _USUAL

    @property
    def words(self) -> str:
        """A few words for a question."""
        name = f" `{self.label}`" if self.label else ""
        return f"{self.type or 'nothing known'}{name}"


def contents(node: Path, size: int) -> tuple[Content, ...]:
    """The device as a whole if it has a signature, then its partitions.

    Raises `ToolFailedError` where a tool cannot read it, and `MissingToolError` where it is missing.
    """
    whole = _signature(node, 0, 0, size)
    found = [whole] if whole.type else []
    found += [
        _signature(node, number, start, length)
        for number, start, length in _partitions(node)
        if length > 0 and start + length <= size
    ]
    return tuple(found)


def foreign(node: Path, found: Sequence[Content]) -> list[Content]:
    """What of it may be somebody's; of a card that says to be one of piimage's not what such a card has."""
    strange = [content for content in found if content.foreign]
    if strange and all(content.number and content.type in _OURS for content in strange):
        with suppress(ImageError):
            if read_label(node) is not None:
                return []
    return strange


def _signature(node: Path, number: int, start: int, size: int) -> Content:
    place = ["-O", str(start), "-S", str(size)] if number else []
    result = run(["blkid", "-p", "-o", "export", *place, "--", node], check=False, timeout=_SECONDS)
    if result.returncode == _AMBIVALENT:
        return Content(number, size, "several signatures")
    pairs = dict(line.split("=", 1) for line in result.text.splitlines() if "=" in line)
    return Content(number, size, pairs.get("TYPE", ""), pairs.get("LABEL", ""))


def _partitions(node: Path) -> list[tuple[int, int, int]]:
    """`(number, start, size)` in bytes; none where there is no table that sfdisk knows."""
    result = run(["sfdisk", "--json", "--", node], check=False, timeout=_SECONDS)
    try:
        table = json.loads(result.stdout)["partitiontable"]
        unit = int(table.get("sectorsize", 512))
        return [
            (_number(entry["node"]), int(entry["start"]) * unit, int(entry["size"]) * unit)
            for entry in table.get("partitions", ())
            if entry.get("type") not in _CONTAINERS
        ]
    except (ValueError, KeyError, TypeError):
        return []


def _number(node: str) -> int:
    """A partition's number: sfdisk names a partition by its device: `/dev/sdb2`, `/dev/mmcblk0p2`, `card.img2`."""
    return int(node[len(node.rstrip("0123456789")) :] or 0)
