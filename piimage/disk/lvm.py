"""Logical volumes of LVM2 that lie on one partition: which they are, and where their bytes are.

Nothing is activated, so the names of a group that this machine has too are of no concern. Layout: lvm2,
lib/format_text/layout.h; lvmcache(7); the metadata is text. The image is untrusted: what contradicts itself is an
`ImageError`.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from piimage.disk.lvm_text import Value, parse
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.window import Window

#: How `Filesystem.type` has a physical volume, as blkid does.
MEMBER = "LVM2_member"
_SECTOR = 512
_LABEL, _TYPE = b"LABELONE", b"LVM2 001"
_MAGIC = b" LVM2 x[5A%r0N*>"
#: What LVM's CRC-32 begins with; it ends without an inversion (lib/misc/crc.c).
_CRC = 0xF597A6CF
_HEADER, _IGNORED = 512, 1
_MAX_AREAS, _MAX_TEXT, _MAX_VOLUMES = 16, 4 << 20, 256
_LINEAR = "striped"  # with one stripe
#: Of a group and a volume (lvm(8), "Valid names"): they become part of a device's path.
_NAME = re.compile(r"(?!-|\.{1,2}\Z)[A-Za-z0-9+_.-]{1,127}")


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume: `kind` is `linear` or the type of its segments, `pieces` `(image offset, length)` in bytes.

    `pieces` are in the volume's order, neighbours joined; empty where it is not linear or lies elsewhere too.
    """

    group: str
    name: str
    kind: str
    pieces: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Physical:
    """What the label of a physical volume says; areas of metadata in bytes from the partition's begin."""

    uuid: str
    areas: tuple[tuple[int, int], ...]


def volumes(source: Window, size: int) -> list[Volume]:
    """The logical volumes of the group whose physical volume, `size` bytes, begins where `source` does.

    In the order of their names. Raises `ImageError` for a label or metadata that are damaged.
    """
    physical = _label(source)
    newest: dict[str, Value] | None = None
    for start, length in physical.areas:
        found = _metadata(source, start, length)
        if found is not None and (
            newest is None or _number(found, "seqno") > _number(newest, "seqno")
        ):
            newest = found
    if newest is None:
        return []  # a physical volume of no group
    try:
        return sorted(_volumes(source, size, physical, newest), key=lambda v: v.name)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(source, f"its metadata: {error}") from error


def _damaged(source: Window, what: str) -> ImageError:
    return ImageError(
        f"the LVM volume of `{source.name}` at byte {source.start} is damaged: {what}",
        hint="see `pvck` on it, and use another copy of the image",
    )


def _crc(data: bytes) -> int:
    return zlib.crc32(data, _CRC ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _label(source: Window) -> _Physical:
    """The label in one of the first four sectors."""
    for sector in range(4):
        raw = source.read(sector * _SECTOR, _SECTOR)
        if raw[:8] == _LABEL and raw[24:32] == _TYPE:
            break
    else:
        raise _damaged(source, "it has no label")
    if int.from_bytes(raw[16:20], "little") != _crc(raw[20:]):
        raise _damaged(source, "the checksum of its label is wrong")
    at = int.from_bytes(raw[20:24], "little")
    uuid = raw[at : at + 32].decode("ascii", errors="replace")
    at += 40  # with the size of the device
    lists: list[tuple[tuple[int, int], ...]] = []
    for _ in range(2):  # data, metadata
        areas: list[tuple[int, int]] = []
        while True:
            place, length = (int.from_bytes(raw[at + i : at + i + 8], "little") for i in (0, 8))
            at += 16
            if at > len(raw) or len(areas) > _MAX_AREAS:
                raise _damaged(source, "its label does not end")
            if not place:
                break
            areas.append((place, length))
        lists.append(tuple(areas))
    return _Physical(uuid, lists[1])


def _metadata(source: Window, start: int, length: int) -> dict[str, Value] | None:
    """The newest metadata of one area, None for an area without; raises `ImageError` for a broken one."""
    head = source.read(start, _HEADER)
    if head[4:20] != _MAGIC or int.from_bytes(head[:4], "little") != _crc(head[4:]):
        raise _damaged(source, "the header of its metadata is broken")
    offset, size = (int.from_bytes(head[i : i + 8], "little") for i in (40, 48))
    checksum, flags = (int.from_bytes(head[i : i + 4], "little") for i in (56, 60))
    if not offset or flags & _IGNORED:
        return None
    if not (_HEADER <= offset < length and 0 < size <= min(length - _HEADER, _MAX_TEXT)):
        raise _damaged(source, "its metadata lie outside their area")
    first = min(size, length - offset)
    raw = source.read(start + offset, first)
    if first < size:  # the area is a ring, its header apart
        raw += source.read(start + _HEADER, size - first)
    if _crc(raw) != checksum:
        raise _damaged(source, "the checksum of its metadata is wrong")
    try:
        return parse(raw.rstrip(b"\0").decode())
    except ValueError as error:
        raise _damaged(source, f"its metadata: {error}") from error


def _volumes(
    source: Window, size: int, physical: _Physical, metadata: dict[str, Value]
) -> Iterator[Volume]:
    (group,) = (name for name, value in metadata.items() if isinstance(value, dict))
    content = _section(metadata, group)
    extent = _number(content, "extent_size") * _SECTOR
    own = _own(_section(content, "physical_volumes"), physical.uuid)
    listed = _section(content, "logical_volumes") if "logical_volumes" in content else {}
    if len(listed) > _MAX_VOLUMES:
        raise ValueError("it has too many volumes")
    for name in (group, *listed):
        if not _NAME.fullmatch(name):
            raise ValueError(f"`{name[:40]}` is no name")
    taken: list[tuple[int, int]] = []
    for name in listed:
        kind, pieces = _pieces(_section(listed, name), own, extent)
        for at, length in pieces:
            if at < _HEADER or length <= 0 or at + length > size:
                raise ValueError(f"`{name}` lies outside the physical volume")
        taken += pieces
        placed = tuple((source.start + at, length) for at, length in pieces)
        yield Volume(group, name, kind, placed)
    for (one, length), (two, _) in pairwise(sorted(taken)):
        if one + length > two:
            raise ValueError("volumes overlap")


def _own(described: dict[str, Value], uuid: str) -> dict[str, tuple[int, int]]:
    """The name that the group has for the physical volume: its first extent's byte, and how many it has."""
    own = {}
    for name in described:
        volume = _section(described, name)
        if str(volume["id"]).replace("-", "") == uuid:
            own[name] = (_number(volume, "pe_start") * _SECTOR, _number(volume, "pe_count"))
    if len(own) != 1:
        raise ValueError("the group does not know the physical volume")
    return own


def _pieces(
    volume: dict[str, Value], own: dict[str, tuple[int, int]], extent: int
) -> tuple[str, list[tuple[int, int]]]:
    """The kind of a volume, and its pieces within the physical volume if it is a linear one that lies on it alone."""
    segments = [
        _section(volume, key)
        for key in volume
        if key.startswith("segment") and key != "segment_count"
    ]
    if len(segments) != _number(volume, "segment_count"):
        raise ValueError("segments are missing")
    segments.sort(key=lambda segment: _number(segment, "start_extent"))
    pieces: list[tuple[int, int]] = []
    due = 0
    for segment in segments:
        kind, count = str(segment["type"]), _number(segment, "extent_count")
        if kind != _LINEAR:
            return kind, []
        stripes = segment["stripes"]
        if not isinstance(stripes, list) or _number(segment, "stripe_count") * 2 != len(stripes):
            raise ValueError("stripes are missing")
        if len(stripes) != 2:  # noqa: PLR2004 -- a physical volume and an extent
            return kind, []
        if str(stripes[0]) not in own:
            return "on another disk", []
        if _number(segment, "start_extent") != due:
            raise ValueError("segments do not follow each other")
        due += count
        begin, total = own[str(stripes[0])]
        first = stripes[1]
        if not isinstance(first, int) or not 0 <= first <= total - count:
            raise ValueError("a segment lies outside the physical volume")
        at, length = begin + first * extent, count * extent
        if pieces and sum(pieces[-1]) == at:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + length)
        else:
            pieces.append((at, length))
    return "linear", pieces


def _section(values: dict[str, Value], name: str) -> dict[str, Value]:
    found = values[name]
    if not isinstance(found, dict):
        raise TypeError(f"`{name}` is no section")
    return found


def _number(values: dict[str, Value], name: str) -> int:
    found = values[name]
    if not isinstance(found, int) or found < 0:
        raise TypeError(f"`{name}` is no number")
    return found
