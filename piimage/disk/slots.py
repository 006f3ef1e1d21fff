"""Slots: files of fixed size whose sectors are overwritten per node, and the patches that do so."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piimage.disk.rootfs import open_tree
from piimage.errors import ImageError, PiimageError, WriteFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PADDING = b"\n"


class SlotError(PiimageError):
    """Content that does not fit the slots of a variant."""


@dataclass(frozen=True, slots=True)
class Patch:
    """`data` belongs at byte `offset` of an image."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SlotPlace:
    """A slot of `size` bytes at `extents`: `(file offset, image offset, length)` in file order."""

    size: int
    extents: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Where each slot of a variant lies, by path."""

    slots: Mapping[str, SlotPlace]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return {
            path: {"size": place.size, "extents": [list(extent) for extent in place.extents]}
            for path, place in sorted(self.slots.items())
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SlotMap:
        """Read `to_json` back."""
        return cls(
            {
                path: SlotPlace(place["size"], tuple((a, b, c) for a, b, c in place["extents"]))
                for path, place in data.items()
            }
        )


def locate(image: Path, root_offset: int, sizes: Mapping[str, int]) -> SlotMap:
    """Find the slots `{path: size}` in the Linux file system at byte `root_offset`.

    Raises `ImageError` for a slot that is absent, of another size, not padding only, not contiguous
    with its file (holes, reserved space), reachable by a second name, or sharing a block.
    """
    with open_tree(image, root_offset) as tree:
        places = {}
        for path, size in sizes.items():
            actual = tree.size(path)
            if actual != size:
                raise ImageError(f"slot `{path}` has {actual} bytes, expected {size}")
            places[path] = SlotPlace(size, tuple(tree.extents(path)))
        contents = tree.read_files(sizes)
    for path, content in contents.items():
        if content.strip(PADDING):
            raise ImageError(f"slot `{path}` of the variant is not empty")
    _refuse_overlap(places)
    return SlotMap(places)


def fill(slot_map: SlotMap, contents: Mapping[str, bytes]) -> list[Patch]:
    """Patches that put `contents` into their slots, padded with newlines to the slots' sizes.

    Slots that `contents` does not name are left alone. Raises `SlotError` for content too long or
    a path that is no slot.
    """
    patches = []
    for path, content in sorted(contents.items()):
        place = slot_map.slots.get(path)
        if place is None:
            raise SlotError(f"the variant has no slot `{path}`")
        if len(content) > place.size:
            raise SlotError(
                f"the content for `{path}` has {len(content)} bytes, its slot holds {place.size}",
                hint="a larger slot needs a new variant",
            )
        padded = content.ljust(place.size, PADDING)
        patches += [Patch(where, padded[at : at + n]) for at, where, n in place.extents]
    return patches


def apply_patches(target: Path | int, patches: Iterable[Patch]) -> None:
    """Write patches to an image or device (a path or an open descriptor) and fsync.

    Raises `ImageError` before anything is written if a patch lies outside, `WriteFailedError` when
    the bytes are not taken.
    """
    ordered = sorted(patches, key=lambda patch: patch.offset)
    opened = not isinstance(target, int)
    try:
        fd = os.open(target, os.O_RDWR | os.O_CLOEXEC) if isinstance(target, Path) else target
        try:
            end = os.lseek(fd, 0, os.SEEK_END)
            for patch in ordered:
                if patch.offset < 0 or patch.offset + len(patch.data) > end:
                    raise ImageError(f"a patch at byte {patch.offset} lies outside the image")
            for patch in ordered:
                _write(fd, patch)
            os.fsync(fd)
        finally:
            if opened:
                os.close(fd)
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise WriteFailedError(f"cannot write to the image: {words}") from error


def _write(fd: int, patch: Patch) -> None:
    data, at = memoryview(patch.data), patch.offset
    while data:
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done


def _refuse_overlap(places: Mapping[str, SlotPlace]) -> None:
    pieces = sorted(
        (where, length, path)
        for path, place in places.items()
        for _, where, length in place.extents
    )
    for (start, length, one), (following, _, other) in pairwise(pieces):
        if start + length > following:
            raise ImageError(f"slots `{one}` and `{other}` share blocks")
