"""What goes on a card: an image, the sectors that make it one node, and the blocks that matter.

Which blocks matter is what the file systems have allocated, the stamp included. Holes of the image file say
nothing: an allocated block of zeros is a hole after many a copy, and a card keeps its old bytes there.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.disk import fat
from piimage.disk.bmap import mapped_ranges
from piimage.disk.table import read_table
from piimage.disk.window import blank, opened
from piimage.errors import ImageError
from piimage.flash.needed import Coming, Known
from piimage.flash.ranges import BLOCK, Range, pieces, rounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.disk.arriving import Arriving
    from piimage.disk.slots import Patch
    from piimage.disk.window import Content, Image
    from piimage.facts import PartitionTable
    from piimage.flash.needed import Needed

#: The head is what is written last: up to the first partition, and at most this.
_HEAD = 1 << 20
#: Blocks of the image that its fingerprint is made of.
_SAMPLES = 256


@dataclass(frozen=True, slots=True)
class Payload:
    """An image under `patches`: `size` in bytes on the card, `map` the ranges that matter.

    `head` is where the part ends that is written last. `fingerprint` tells payloads apart, by what is known of
    them, their map, their patches and samples of the image.
    """

    image: Path | Image
    size: int
    table: PartitionTable
    patches: tuple[Patch, ...] = field(repr=False)
    map: Needed = field(repr=False)
    head: int
    fingerprint: str

    @property
    def needed(self) -> tuple[Range, ...]:
        """What matters, in whole blocks of 4096 bytes, in order; waits for an image that still arrives."""
        return self.map.all(lambda: False)

    def place(self, offset: int) -> str:
        """Where byte `offset` lies, in words: `partition 2, ext4 rootfs`."""
        for partition in (*self.table.volumes, *self.table.partitions):
            if partition.start <= offset < partition.start + partition.size:
                system = partition.filesystem
                words = f"{system.type} {system.label}".strip() if system else ""
                return f"{partition.name}, {words}" if words else partition.name
        return "before the first partition" if offset < self.first else "behind the partitions"

    @property
    def first(self) -> int:
        """Byte at which the first partition begins."""
        return min(partition.start for partition in self.table.partitions)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Open the image; raises `ImageError` if that fails. Several threads may read through one reader."""
        with opened(self.image) as content:
            yield Reader(content, self)


class Reader:
    """Reads a payload: the image's bytes with the patches over them, zeros behind its end."""

    def __init__(self, content: Content, payload: Payload) -> None:
        # What lies behind the image, where its last partition was grown, are zeros.
        self._content, self._name, self._size = content, payload.image.name, payload.table.size
        self._patches = sorted(payload.patches, key=lambda patch: patch.offset)
        self._ends = [patch.offset + len(patch.data) for patch in self._patches]

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with what belongs at byte `offset`; raises `ImageError` if the image cannot be read."""
        end = offset + len(view)
        inside = max(0, min(end, self._size) - offset)
        done = 0
        try:
            while done < inside:
                count = self._content.read_into(view[done:inside], offset + done)
                if not count:
                    raise ImageError(f"`{self._name}` became shorter while it was being read")
                done += count
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise ImageError(f"cannot read `{self._name}`: {words}") from error
        blank(view[inside:])
        for patch in self._touching(offset, end):
            first, last = max(offset, patch.offset), min(end, patch.offset + len(patch.data))
            view[first - offset : last - offset] = patch.data[
                first - patch.offset : last - patch.offset
            ]

    @contextmanager
    def held(self, offset: int, view: memoryview) -> Iterator[memoryview]:
        """As many bytes as `view` has, from byte `offset`: where they are in memory already, or else in `view`."""
        end = offset + len(view)
        is_as_in_image = end <= self._size and next(self._touching(offset, end), None) is None
        lent = self._content.lent(len(view), offset) if is_as_in_image else nullcontext()
        with lent as content:
            if content is None:
                self.read_into(offset, view)
            yield view if content is None else content

    def proves(self, offset: int, view: memoryview) -> bool:
        """Whether `view` is known to be what belongs at byte `offset`, without reading that; False says nothing."""
        patched = next(self._touching(offset, offset + len(view)), None)
        return patched is None and self._content.proves(view, offset)

    def _touching(self, start: int, end: int) -> Iterator[Patch]:
        # Patches do not overlap, so their ends are in order too.
        for patch in self._patches[bisect_left(self._ends, start + 1) :]:
            if patch.offset >= end:
                return
            yield patch


def open_payload(
    image: Path | Image,
    patches: Sequence[Patch] = (),
    *,
    mapped: Sequence[Range] | None = None,
    also: Sequence[Range] = (),
    full: bool = False,
    identity: str = "",
) -> Payload:
    """The payload of an image; `also` are further ranges to write, `full` means every byte.

    `mapped` is what `mapped_ranges` says of the image, where that is known already.
    `identity` goes into the fingerprint: what is known to tell this image from others like it, such as a build's id.

    Raises `ImageError` for an image whose table or file systems we cannot read.
    """
    table = read_table(image)
    for patch in patches:
        if patch.offset < 0 or patch.offset + len(patch.data) > table.size:
            raise ImageError(f"a patch at byte {patch.offset} lies outside `{image.name}`")
    ranges = [(0, table.size)]
    if not full:
        known = mapped_ranges(image, table) if mapped is None else mapped
        ranges = _needed(image, table, patches, known)
    end = -(-table.size // BLOCK) * BLOCK
    needed = tuple(rounded([*ranges, *also], BLOCK, end))
    return Payload(
        image=image,
        size=table.size,
        table=table,
        patches=tuple(patches),
        map=Known(needed),
        head=_head(table),
        fingerprint=_fingerprint(image, f"{identity} {table.size}", patches, needed),
    )


def open_arriving(image: Arriving, *, also: Sequence[Range] = (), identity: str = "") -> Payload:
    """The payload of an image that still arrives; `also` and `identity` as for `open_payload`.

    Waits until all its partitions have begun. Raises as `open_payload` does, and what unpacking it raises.
    """
    table = read_table(image)
    known = f"{identity} {image.identity} {table.size} {sorted(also)}"
    return Payload(
        image=image,
        size=table.size,
        table=table,
        patches=(),
        map=Coming(image, table, also),
        head=_head(table),
        fingerprint=hashlib.sha256(known.encode()).hexdigest(),
    )


def _head(table: PartitionTable) -> int:
    first = min(partition.start for partition in table.partitions)
    return max(BLOCK, min(first, _HEAD) // BLOCK * BLOCK)


def _needed(
    image: Path | Image, table: PartitionTable, patches: Sequence[Patch], mapped: Sequence[Range]
) -> list[Range]:
    """What the image has in use, and what it has in use once the patches are in: a stamp adds files to the FAT."""
    ranges = [*mapped]
    ranges += [(patch.offset, len(patch.data)) for patch in patches]
    for partition in table.partitions:
        if patches and partition.filesystem and partition.filesystem.type == "vfat":
            with fat.open_fat(image, partition.start, patches) as volume:
                ranges += [
                    (partition.start + start, length) for start, length in volume.allocated()
                ]
    return ranges


def _fingerprint(
    image: Path | Image, identity: str, patches: Sequence[Patch], needed: Sequence[Range]
) -> str:
    hasher = hashlib.sha256(repr((identity, needed)).encode())
    for patch in patches:
        hasher.update(b"%d %d\n" % (patch.offset, len(patch.data)))
        hasher.update(patch.data)
    if not isinstance(image, Path):
        hasher.update(image.identity.encode())
        return hasher.hexdigest()
    blocks = [start for start, _ in pieces(needed, 16 * BLOCK)]
    with opened(image) as content:
        for start in blocks[:: max(1, len(blocks) // _SAMPLES)]:
            hasher.update(content.pread(BLOCK, start))
    return hasher.hexdigest()
