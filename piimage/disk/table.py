"""The partition table of an image: MBR with primary and logical partitions, and nothing else."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.disk import volumes
from piimage.disk.probe import probe
from piimage.disk.window import Window, window
from piimage.errors import ImageError, WriteFailedError
from piimage.facts import Partition, PartitionTable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.disk.window import Image

SECTOR = 512
_ENTRIES, _DISK_ID = 446, 440
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_MAX_LOGICAL = 128
_MAX_SECTORS = 0xFFFFFFFF
#: A CHS address that says "too large for CHS": what sfdisk and the kernel's tools write.
_NO_CHS = b"\xfe\xff\xff"
_MAGICS = (
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"\xfd7zXZ\0", "xz compressed data"),
    (0, b"\x1f\x8b", "gzip compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd compressed data"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"LUKS\xba\xbe", "one encrypted LUKS volume"),
    (0, b"hsqs", "one squashfs file system"),
    (0, b"\x7fELF", "a program"),
    (257, b"ustar", "a tar archive"),
    (32769, b"CD001", "an ISO 9660 image"),
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One used entry of a table: `place` is its byte offset in the image, the rest in sectors."""

    place: int
    type: int
    start: int
    count: int


def read_table(path: Path | Image) -> PartitionTable:
    """Read the MBR and probe each partition's file system.

    An extended partition is listed too (type `05`, `0f` or `85`, no file system); logical ones are
    numbered from 5. Raises `ImageError` that says what was seen instead of a table that we support.
    """
    with window(path) as source:
        check_head(source.read(0, min(source.size, 36864)), path.name)
        entries = _numbered(source)
        partitions = tuple(
            _partition(path, source, number, entry) for number, entry in sorted(entries.items())
        )
        if all(p.filesystem is None for p in partitions) and _is_4k(source, entries):
            raise ImageError(
                f"`{path.name}` is made for 4096-byte sectors, only 512-byte sectors are supported"
            )
        inside = tuple(volumes.found(path, partitions))
        disk_id = source.read(_DISK_ID, 4)[::-1].hex()
        return PartitionTable(
            label="dos",
            disk_id=disk_id,
            sector_size=SECTOR,
            size=source.size,
            partitions=partitions,
            volumes=inside,
        )


def check_head(head: bytes, name: str) -> None:
    """Raise `ImageError` unless these first bytes of an image (36 KiB if there are) hold an MBR."""
    _refuse_foreign(head, name)
    entries = [head[at : at + 16] for at in range(_ENTRIES, 510, 16)]
    if any(entry[4] == _PROTECTIVE for entry in entries):
        raise ImageError(f"GPT is not supported, only MBR: `{name}` has a protective MBR")
    if any(entry[0] not in (0, 0x80) for entry in entries):
        raise ImageError(f"`{name}` begins with a boot sector that holds no partition table")
    if not any(entry[4] for entry in entries):
        raise ImageError(f"the partition table of `{name}` is empty")


def _refuse_foreign(head: bytes, name: str) -> None:
    """Raise `ImageError` for what begins like something else, or has no boot sector at all."""
    for at, magic, what in _MAGICS:
        if head[at : at + len(magic)] == magic:
            raise ImageError(f"no partition table: `{name}` is {what}")
    for size in (512, 4096):
        if head[size : size + 8] == b"EFI PART":
            raise ImageError(
                f"GPT is not supported, only MBR: `{name}` has a GPT for {size}-byte sectors"
            )
    if len(head) < SECTOR or head[510:512] != b"\x55\xaa":
        if head[1080:1082] == b"\x53\xef":
            raise ImageError(f"no partition table: `{name}` is one ext2/3/4 file system")
        raise ImageError(f"no partition table: `{name}` {_beginning(head)}")
    for at, mark in ((3, b"NTFS    "), (54, b"FAT"), (82, b"FAT32")):
        if head[at : at + len(mark)] == mark:
            kind = mark.decode().strip()
            raise ImageError(f"no partition table: `{name}` is one {kind} file system")


def declared_end(path: Path) -> int:
    """Byte at which the last primary partition ends, by the MBR alone; raises `ImageError` if there is none."""
    with window(path) as source:
        return max((e.start + e.count for e in _entries(source, 0) if e.type), default=0) * SECTOR


def table_sectors(path: Path | Image) -> list[tuple[int, int]]:
    """`(offset, length)` in bytes of every sector that is part of the table: MBR and EBRs."""
    with window(path) as source:
        places = {entry.place // SECTOR for entry in _numbered(source).values()}
        return [(sector * SECTOR, SECTOR) for sector in sorted(places | {0})]


def set_disk_id(path: Path, disk_id: str) -> None:
    """Write the disk signature, 8 hex digits as in `PARTUUID=xxxxxxxx-02`."""
    if not re.fullmatch(r"[0-9a-fA-F]{8}", disk_id):
        raise ValueError(f"`{disk_id}` is not 8 hex digits")
    read_table(path)
    with _writing(path) as fd:
        os.pwrite(fd, bytes.fromhex(disk_id)[::-1], _DISK_ID)


def grow_last_partition(path: Path, new_size: int) -> PartitionTable:
    """Make the image `new_size` bytes and its last partition end there; return the new table.

    The disk signature and all else in the table stay as they are, and the file system is not grown.
    Raises `ImageError` for a smaller size, one beyond MBR's 2 TiB, or a last partition that is
    logical.
    """
    table = read_table(path)
    if new_size < table.size:
        raise ImageError(f"`{path.name}` has {table.size} bytes and cannot shrink to {new_size}")
    last = max(table.partitions, key=lambda p: p.start + p.size)
    if last.number > 4 or int(last.type, 16) in _EXTENDED:  # noqa: PLR2004 -- logical ones start at 5
        raise ImageError(f"the last partition of `{path.name}` is logical and cannot be grown")
    with _writing(path) as fd:
        sector = grown_entry(os.pread(fd, SECTOR, 0), last.number, new_size)
        os.ftruncate(fd, new_size)
        os.pwrite(fd, sector, 0)
    return read_table(path)


def grown_entry(sector: bytes, number: int, end: int) -> bytes:
    """The MBR `sector` with its primary partition `number` ending at byte `end`, all else as it was.

    Raises `ImageError` beyond MBR's 2 TiB.
    """
    if end // SECTOR > _MAX_SECTORS:
        raise ImageError("an MBR cannot describe more than 2 TiB")
    place = _ENTRIES + 16 * (number - 1)
    entry = bytearray(sector[place : place + 16])
    start = int.from_bytes(entry[8:12], "little")
    entry[5:8] = _NO_CHS
    entry[12:16] = (end // SECTOR - start).to_bytes(4, "little")
    return sector[:place] + bytes(entry) + sector[place + 16 :]


@contextmanager
def _writing(path: Path) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield fd
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise WriteFailedError(f"cannot write `{path}`: {words}") from error


def _numbered(source: Window) -> dict[int, _Entry]:
    """Used entries by partition number."""
    found = {n: e for n, e in enumerate(_entries(source, 0), start=1) if e.type}
    extended = [entry for entry in found.values() if entry.type in _EXTENDED]
    if len(extended) > 1:
        raise ImageError(f"`{source.name}` has two extended partitions")
    if extended:
        found |= dict(enumerate(_logical(source, extended[0]), start=5))
    return found


def _logical(source: Window, container: _Entry) -> Iterator[_Entry]:
    sector, seen = container.start, set[int]()
    while True:
        if sector in seen or len(seen) >= _MAX_LOGICAL:
            raise ImageError(f"the logical partitions of `{source.name}` form a loop")
        seen.add(sector)
        if source.read(sector * SECTOR + 510, 2) != b"\x55\xaa":
            raise ImageError(
                f"the logical partition at sector {sector} of `{source.name}` is damaged"
            )
        partition, following, *_ = _entries(source, sector)
        if partition.type:
            yield _Entry(partition.place, partition.type, sector + partition.start, partition.count)
        if following.type not in _EXTENDED:
            return
        sector = container.start + following.start


def _entries(source: Window, sector: int) -> list[_Entry]:
    raw = source.read(sector * SECTOR, SECTOR)
    return [
        _Entry(
            sector * SECTOR + at,
            raw[at + 4],
            int.from_bytes(raw[at + 8 : at + 12], "little"),
            int.from_bytes(raw[at + 12 : at + 16], "little"),
        )
        for at in range(_ENTRIES, 510, 16)
    ]


def _partition(path: Path | Image, source: Window, number: int, entry: _Entry) -> Partition:
    start, size = entry.start * SECTOR, entry.count * SECTOR
    if not entry.start or not entry.count:
        raise ImageError(f"partition {number} of `{path.name}` is empty or begins at sector 0")
    if start + size > source.size:
        raise ImageError(
            f"`{path.name}` is truncated: partition {number} ends at byte {start + size}, "
            f"the file has {source.size}"
        )
    filesystem = None
    if entry.type not in _EXTENDED:
        with window(path, start) as inside:
            inside.size = size
            filesystem = probe(inside)
    if filesystem is not None and filesystem.type == "crypto_LUKS":
        raise ImageError(
            f"partition {number} of `{path.name}` is encrypted (LUKS), which is not supported"
        )
    return Partition(
        number=number, start=start, size=size, type=f"{entry.type:02x}", filesystem=filesystem
    )


def _is_4k(source: Window, entries: dict[int, _Entry]) -> bool:
    """Whether file systems begin where the entries point if sectors had 4096 bytes."""
    return any(
        source.read(entry.start * 4096 + 1080, 2) == b"\x53\xef"
        for entry in entries.values()
        if entry.start * 4096 + 4096 <= source.size
    )


def _beginning(head: bytes) -> str:
    if not head:
        return "is empty"
    if not head.strip(b"\0"):
        return "begins with zeros"
    first = head[:16]
    shown = (
        f"`{first.decode()}`"
        if first.isascii() and first.decode().isprintable()
        else first.hex(" ")
    )
    return f"begins with {shown}"
