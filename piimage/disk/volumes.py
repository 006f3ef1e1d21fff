"""The logical volumes of an image as further partitions, each with the file system that begins in it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from piimage.disk import lvm
from piimage.disk.probe import probe
from piimage.disk.window import window
from piimage.errors import ImageError
from piimage.facts import Partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from piimage.disk.window import Image

#: No partition of an MBR has such a number.
_FIRST = 1001


def found(path: Path | Image, partitions: Iterable[Partition]) -> Iterator[Partition]:
    """The logical volumes in physical ones, numbered; none of a physical volume that is damaged."""
    number = _FIRST
    for partition in partitions:
        if partition.filesystem is None or partition.filesystem.type != lvm.MEMBER:
            continue
        with window(path, partition.start) as inside, suppress(ImageError):
            for volume in lvm.volumes(inside, partition.size):
                yield _volume(path, partition, volume, number)
                number += 1


def _volume(path: Path | Image, partition: Partition, volume: lvm.Volume, number: int) -> Partition:
    name = f"{volume.group}/{volume.name}"
    if len(volume.pieces) != 1:
        pieces = f", in {len(volume.pieces)} pieces" if volume.pieces else ""
        return Partition(
            number=number, start=partition.start, size=0, type=f"{volume.kind}{pieces}", volume=name
        )
    start, size = volume.pieces[0]
    with window(path, start) as inside:
        inside.size = size
        system = probe(inside)
    return Partition(
        number=number, start=start, size=size, type=volume.kind, filesystem=system, volume=name
    )
