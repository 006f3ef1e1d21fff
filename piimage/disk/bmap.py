"""bmap 2.0: which blocks of an image must reach a card.

The map comes from what the file systems have allocated, never from the holes of the file: a block
that is in use and zero is a hole after many a copy, and a card that keeps its old bytes there is
corrupt without anyone noticing (bmaptool issues 3 and 128).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.disk import fat, lvm, rootfs
from piimage.disk.atomic import write_bytes
from piimage.disk.table import read_table, table_sectors
from piimage.disk.window import joined
from piimage.errors import ImageError
from piimage.progress import Progress, Quiet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.disk.window import Image
    from piimage.facts import Partition, PartitionTable

BLOCK = 4096
_EXTENDED = ("05", "0f", "85")
_CHUNK = 1 << 20


def mapped_ranges(
    image: Path | Image, table: PartitionTable | None = None
) -> list[tuple[int, int]]:
    """`(offset, length)` in bytes that a card needs: table, boot gap, and all that is allocated.

    A partition whose file system we cannot read the allocation of (swap, btrfs, none) counts whole, and so does one
    with logical volumes of which that is true.
    """
    table = table or read_table(image)
    first = min(partition.start for partition in table.partitions)
    ranges = [(0, first), *table_sectors(image)]
    for partition in table.partitions:
        for part in _parts(table, partition):
            ranges += _part_ranges(image, part)
    return joined(ranges)


def mapped_blocks(image: Path, table: PartitionTable | None = None) -> list[tuple[int, int]]:
    """`(first block, count)` in blocks of 4096 bytes, rounded outwards and in order."""
    blocks = [
        (start // BLOCK, -(-(start + length) // BLOCK) - start // BLOCK)
        for start, length in mapped_ranges(image, table)
    ]
    return joined(blocks)


def write_bmap(image: Path, target: Path, *, progress: Progress | None = None) -> None:
    """Write the bmap of `image` to `target`, all or nothing."""
    write_bytes(target, bmap_document(image, progress=progress))


def bmap_document(
    image: Path, *, table: PartitionTable | None = None, progress: Progress | None = None
) -> bytes:
    """The XML text of an image's bmap, with the sha256 of every mapped range."""
    size = image.stat().st_size
    blocks = mapped_blocks(image, table)
    mapped = sum(count for _, count in blocks)
    lines = []
    with image.open("rb") as file, (progress or Quiet()).step("mapping the image") as task:
        task.total(mapped * BLOCK)
        for first, count in blocks:
            hasher = hashlib.sha256()
            at, end = first * BLOCK, min((first + count) * BLOCK, size)
            while at < end:
                data = os.pread(file.fileno(), min(_CHUNK, end - at), at)
                hasher.update(data)
                at += len(data)
                task.advance(len(data))
            span = f"{first}-{first + count - 1}" if count > 1 else str(first)
            lines.append(f'        <Range chksum="{hasher.hexdigest()}">{span}</Range>\n')
    return _xml(size, mapped, lines)


def mapped_in_turn(
    image: Path | Image, table: PartitionTable
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """What `mapped_ranges` tells, as it becomes known to who reads the image onward.

    `(byte, ranges)`: with these ranges and those before, all that a card needs before that byte is told. Bytes
    go up; the metadata that tells of what follows is read when it is its turn.
    """
    first = min(partition.start for partition in table.partitions)
    yield 0, [(0, first), *table_sectors(image)]
    end = 0
    for partition in sorted(table.partitions, key=lambda p: p.start):
        if partition.type in _EXTENDED:
            continue
        if partition.start < end:
            raise ImageError(f"partitions of `{image.name}` overlap")
        end = partition.start + partition.size
        for part in _parts(table, partition):
            if rootfs.readable(part):
                with rootfs.open_tree(image, part.start) as system:
                    yield from system.allocated_in_turn()
            yield part.start + part.size, [] if rootfs.readable(part) else _part_ranges(image, part)


def mapped_bytes(image: Path | Image, table: PartitionTable) -> int:
    """About how many bytes a card needs, by what is known at the beginning of each file system."""
    amount = min(partition.start for partition in table.partitions)
    for part in (part for partition in table.partitions for part in _parts(table, partition)):
        if rootfs.readable(part):
            with rootfs.open_tree(image, part.start) as system:
                amount += system.used
        else:
            amount += sum(length for _, length in _part_ranges(image, part))
    return amount


def _parts(table: PartitionTable, partition: Partition) -> list[Partition]:
    """What lies in a partition, in order: itself, or its logical volumes and, without a file system, all between them.

    The space of a volume group that no volume has counts too: where it lies is not told.
    """
    kind = partition.filesystem.type if partition.filesystem else ""
    volumes = table.inside(partition)
    if kind != lvm.MEMBER or not volumes or any(v.filesystem is None for v in volumes):
        return [partition]
    parts: list[Partition] = []
    at, end = partition.start, partition.start + partition.size
    for volume in volumes:
        parts += [replace(partition, start=at, size=volume.start - at), volume]
        at = volume.start + volume.size
    return [part for part in (*parts, replace(partition, start=at, size=end - at)) if part.size]


def _part_ranges(image: Path | Image, partition: Partition) -> list[tuple[int, int]]:
    if partition.type in _EXTENDED:
        return []
    kind = partition.filesystem.type if partition.filesystem else ""
    if rootfs.readable(partition):
        with rootfs.open_tree(image, partition.start) as system:
            return system.allocated()
    if kind == "vfat":
        return fat.allocated(image, partition.start)
    return [(partition.start, partition.size)]


def _xml(size: int, mapped: int, lines: list[str]) -> bytes:
    """The file; its own checksum is taken with zeros in place of the checksum (bmap 2.0)."""
    placeholder = "0" * 64
    text = (
        '<?xml version="1.0" ?>\n'
        '<bmap version="2.0">\n'
        f"    <ImageSize> {size} </ImageSize>\n"
        f"    <BlockSize> {BLOCK} </BlockSize>\n"
        f"    <BlocksCount> {-(-size // BLOCK)} </BlocksCount>\n"
        f"    <MappedBlocksCount> {mapped} </MappedBlocksCount>\n"
        "    <ChecksumType> sha256 </ChecksumType>\n"
        f"    <BmapFileChecksum> {placeholder} </BmapFileChecksum>\n"
        "    <BlockMap>\n" + "".join(lines) + "    </BlockMap>\n"
        "</bmap>\n"
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(placeholder, digest, 1).encode()
