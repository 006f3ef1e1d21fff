"""FAT12, FAT16 and FAT32 inside an image, read in plain Python; `fat.py` has mtools write.

Layout: Microsoft's "FAT: General Overview of On-Disk Format" 1.03. The image is untrusted: chains
and directories that loop, leave the volume or carry forbidden names are an `ImageError`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.disk.window import joined
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.disk.window import Window

_FAT12_BELOW, _FAT16_BELOW = 4085, 65525
#: An entry of FAT32 has 28 bits.
_FAT32_BITS = (0x0FFFFFFF).to_bytes(4, "little")
_READ_ONLY_LFN, _VOLUME, _DIRECTORY = 0x0F, 0x08, 0x10
_MAX_DIRECTORY = 2 << 20  # 65,536 records, the format's own limit
_END, _DELETED, _ESCAPED_E5 = 0x00, 0xE5, 0x05


@dataclass(frozen=True, slots=True)
class FatEntry:
    """One name: its first `cluster` (0 for an empty file), `size` in bytes (0: directories)."""

    name: str
    directory: bool
    cluster: int
    size: int


class Fat:
    """An open FAT; offsets are relative to its boot sector, clusters count from 2 as on disk."""

    def __init__(self, source: Window) -> None:
        self.source = source
        raw = source.read(0, 512)
        layout: tuple[int, int, int, int, int] = struct.unpack_from("<HBHBH", raw, 11)
        self.sector, per_cluster, reserved, copies, root = layout
        sectors = int.from_bytes(raw[19:21], "little") or int.from_bytes(raw[32:36], "little")
        small_fat = int.from_bytes(raw[22:24], "little")
        length = small_fat or int.from_bytes(raw[36:40], "little")
        if (
            raw[510:512] != b"\x55\xaa"
            or self.sector not in (512, 1024, 2048, 4096)
            or per_cluster not in (1, 2, 4, 8, 16, 32, 64, 128)
            or copies not in (1, 2)
            or not (reserved and length and sectors)
        ):
            raise ImageError(f"`{source.name}` has no FAT file system at byte {source.start}")
        self.cluster = per_cluster * self.sector
        self.fat_start, self.fat_size = reserved * self.sector, length * self.sector
        self.copies = copies
        self.root_start = self.fat_start + copies * self.fat_size
        self.root_size = -(-root * 32 // self.sector) * self.sector
        self.data_start = self.root_start + self.root_size
        self.size = sectors * self.sector
        self.clusters = (self.size - self.data_start) // self.cluster
        if self.clusters <= 0 or self.size > source.size:
            raise self.damaged("it is larger than what holds it")
        self.wide = not small_fat
        self.root_cluster = int.from_bytes(raw[44:48], "little") if self.wide else 0
        at = 67 if self.wide else 39
        self.serial = int.from_bytes(raw[at : at + 4], "little")
        self.table = self._table()

    def damaged(self, what: str) -> ImageError:
        """The error for a structure that contradicts itself."""
        return ImageError(f"the FAT file system of `{self.source.name}` is damaged: {what}")

    def chain(self, first: int) -> list[int]:
        """Clusters of a file or directory in order; empty for `first` 0."""
        found: list[int] = []
        end = 0x0FFFFFF8 if self.wide else 0xFF8 if self.clusters < _FAT12_BELOW else 0xFFF8
        while first and first < end:
            if not 2 <= first < self.clusters + 2 or len(found) > self.clusters:  # noqa: PLR2004 -- see class
                raise self.damaged("a cluster chain loops or leaves the volume")
            found.append(first)
            first = self.table[first]
        return found

    def position(self, cluster: int) -> int:
        """Byte offset of a cluster."""
        return self.data_start + (cluster - 2) * self.cluster

    def allocated(self) -> list[tuple[int, int]]:
        """`(offset, length)` of all that is in use: boot area, FATs, root and clusters."""
        ranges = [(0, self.data_start)]
        ranges += [
            (self.position(number), self.cluster)
            for number, value in enumerate(self.table)
            if value and number > 1
        ]
        return joined(ranges)

    def directory(self, cluster: int) -> list[FatEntry]:
        """Names in the directory that begins at `cluster` (0: the root), `.` and `..` left out."""
        return list(self._entries(self.directory_bytes(cluster)))

    def directory_places(self, cluster: int) -> list[tuple[int, int]]:
        """`(offset, length)` of a directory's pieces, in order."""
        if not cluster and not self.wide:
            return [(self.root_start, self.root_size)]
        return [
            (self.position(number), self.cluster)
            for number in self.chain(cluster or self.root_cluster)
        ]

    def directory_bytes(self, cluster: int) -> bytes:
        """A directory's records as they lie on disk."""
        places = self.directory_places(cluster)
        if sum(length for _, length in places) > _MAX_DIRECTORY:
            raise self.damaged("a directory is too large")
        return b"".join(self.source.read(*place) for place in places)

    def find(self, path: str) -> FatEntry | None:
        """The entry at `path` in any case, or None; the root is a directory at cluster 0."""
        entry = FatEntry("", directory=True, cluster=0, size=0)
        for part in path.split("/"):
            if part in ("", "."):
                continue
            if not entry.directory:
                return None
            names = {e.name.casefold(): e for e in self.directory(entry.cluster)}
            child = names.get(part.casefold())
            if child is None:
                return None
            entry = child
        return entry

    def walk(self) -> Iterator[tuple[str, FatEntry]]:
        """Every path with its entry, parents first; the root itself is left out."""
        todo, seen = [("", 0)], {0, self.root_cluster}
        while todo:
            prefix, cluster = todo.pop()
            for entry in self.directory(cluster):
                path = f"{prefix}/{entry.name}"
                yield path, entry
                if entry.directory:
                    if entry.cluster in seen:
                        raise self.damaged("a directory contains itself")
                    seen.add(entry.cluster)
                    todo.append((path, entry.cluster))

    def content(self, entry: FatEntry) -> bytes:
        """The content of a file."""
        chain = self.chain(entry.cluster)
        if len(chain) * self.cluster < entry.size:
            raise self.damaged(f"`{entry.name}` is longer than its clusters")
        needed = chain[: -(-entry.size // self.cluster)]
        return b"".join(self.source.read(self.position(c), self.cluster) for c in needed)[
            : entry.size
        ]

    def label(self) -> str:
        """The volume's label: the root directory's, which is what blkid and mtools go by."""
        raw = self.directory_bytes(0)
        for at in range(0, len(raw), 32):
            if raw[at] == _END:
                break
            attributes = raw[at + 11]
            if raw[at] != _DELETED and attributes & _VOLUME and attributes != _READ_ONLY_LFN:
                return raw[at : at + 11].decode("cp850").strip()
        return ""

    def _table(self) -> tuple[int, ...]:
        count = self.clusters + 2
        if self.wide:
            # Masked as one number: a card's table has a hundred thousand entries, and a stamp opens it often.
            entries = int.from_bytes(self._fat(count * 4), "little")
            entries &= int.from_bytes(_FAT32_BITS * count, "little")
            return struct.unpack(f"<{count}I", entries.to_bytes(count * 4, "little"))
        if self.clusters >= _FAT12_BELOW:
            if self.clusters >= _FAT16_BELOW:
                raise self.damaged("it has too many clusters for FAT16")
            return struct.unpack(f"<{count}H", self._fat(count * 2))
        raw = self._fat(-(-count * 3 // 2)) + b"\0"
        pairs = (int.from_bytes(raw[n * 3 // 2 : n * 3 // 2 + 2], "little") for n in range(count))
        return tuple(v >> 4 if n & 1 else v & 0xFFF for n, v in enumerate(pairs))

    def _fat(self, length: int) -> bytes:
        if length > self.fat_size:
            raise self.damaged("its table is shorter than its clusters")
        return self.source.read(self.fat_start, length)

    def _entries(self, raw: bytes) -> Iterator[FatEntry]:
        pieces: dict[int, bytes] = {}
        checksum = -1
        for at in range(0, len(raw) - 31, 32):
            record = raw[at : at + 32]
            first, attributes = record[0], record[11]
            if first == _END:
                return
            if first != _DELETED and attributes & 0x3F == _READ_ONLY_LFN:
                if first & 0x40:
                    pieces, checksum = {}, record[13]
                pieces[first & 0x1F] = record[1:11] + record[14:26] + record[28:32]
                continue
            if first != _DELETED and not attributes & _VOLUME:
                name = _long_name(pieces) if checksum == _checksum(record[:11]) else ""
                yield from self._entry(record, name or _short_name(record))
            pieces, checksum = {}, -1

    def _entry(self, record: bytes, name: str) -> Iterator[FatEntry]:
        if name in (".", ".."):
            return
        if "/" in name or "\0" in name or not name:
            raise self.damaged(f"a directory holds the name {name!r}")
        high, low = struct.unpack_from("<H4xH", record, 20)
        cluster = low | (high << 16 if self.wide else 0)
        directory = bool(record[11] & _DIRECTORY)
        if directory and cluster == 0:
            raise self.damaged(f"directory `{name}` has no clusters")
        size = 0 if directory else int.from_bytes(record[28:32], "little")
        yield FatEntry(name, directory, cluster, size)


def _short_name(record: bytes) -> str:
    lead = b"\xe5" if record[0] == _ESCAPED_E5 else record[:1]
    base = (lead + record[1:8]).decode("cp850").rstrip()
    extension = record[8:11].decode("cp850").rstrip()
    base = base.lower() if record[12] & 0x08 else base
    extension = extension.lower() if record[12] & 0x10 else extension
    return f"{base}.{extension}" if extension else base


def _long_name(pieces: dict[int, bytes]) -> str:
    raw = b"".join(pieces[key] for key in sorted(pieces))
    text = raw.decode("utf-16-le", errors="replace")
    return text.split("\0", 1)[0]


def _checksum(name: bytes) -> int:
    total = 0
    for byte in name:
        total = ((total & 1) << 7 | total >> 1) + byte & 0xFF
    return total
