"""Rules about the disk itself: table, both file systems, checksum. Rules PI001 to PI004."""

from __future__ import annotations

import struct
from contextlib import suppress
from itertools import pairwise, product
from typing import TYPE_CHECKING

from piimage.disk import census as counting
from piimage.disk import fat, rootfs
from piimage.disk.fat_reader import Fat
from piimage.disk.sparse import hash_file
from piimage.disk.window import window
from piimage.errors import ImageError
from piimage.verify.catalog import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from piimage.disk.census import Census
    from piimage.disk.slots import Patch
    from piimage.facts import Partition, PartitionTable

_SECTOR = 512
_EXTENDED = ("05", "0f", "85")
#: The MBR's four entries: a flag, a type, and where and how long in sectors.
_ENTRIES, _ENTRY, _BOOTS = tuple(range(446, 510, 16)), 16, 0x80
#: Where the MBR keeps the disk's signature.
_SIGNATURE = 0x1B8


def table(found: PartitionTable, census: Census | None, disk_id: str | None) -> Iterator[Finding]:
    """PI001: every partition lies inside the image and apart from the others, and is what was built.

    `disk_id` is the signature that the card must have, None where it is not known.
    """
    own = sorted((p for p in found.partitions if p.type not in _EXTENDED), key=lambda p: p.start)
    for partition in own:
        if partition.start + partition.size > found.size:
            yield Finding("PI001", "", f"partition {partition.number} ends behind the image")
    for one, two in pairwise(own):
        if one.start + one.size > two.start:
            yield Finding("PI001", "", f"partitions {one.number} and {two.number} overlap")
    if disk_id is not None and found.disk_id != disk_id:
        yield Finding("PI001", "", f"the disk id is {found.disk_id}, not {disk_id}")
    if census is None:
        return
    due = {p.number: p for p in census.table.partitions}
    seen = {p.number: p for p in found.partitions}
    for number in sorted(due.keys() | seen.keys()):
        if number not in seen or number not in due:
            word = "missing" if number in due else "not of the build"
            yield Finding("PI001", "", f"partition {number} is {word}")
        elif seen[number] != due[number]:
            yield Finding(
                "PI001",
                "",
                f"partition {number} is {_told(seen[number])}, not {_told(due[number])}",
            )


def _told(partition: Partition) -> str:
    known = partition.filesystem
    words = f"{known.type} `{known.label}` {known.uuid}" if known else "without a file system"
    return (
        f"{partition.size >> 9} sectors of type {partition.type} at {partition.start >> 9}, {words}"
    )


def boot_sector(image: Path, known: Census, *, alone: bool) -> Iterator[Finding]:
    """PI001: flags and code of the first sector are as they were built; `alone` says that nothing else is found yet.

    What `table` tells of entries is put right first, so that flags are seen beside it.
    """
    with window(image) as source:
        raw = bytearray(source.read(0, _SECTOR))
    due = {p.number: p for p in known.table.partitions}
    for number, at in enumerate(_ENTRIES, 1):
        entry = due.get(number)
        if entry is None:
            raw[at : at + _ENTRY] = bytes(_ENTRY)
            continue
        raw[at + 4] = int(entry.type, 16)
        sectors = (entry.start // _SECTOR, entry.size // _SECTOR)
        struct.pack_into("<II", raw, at + 8, *sectors)
    there = [raw[at] for at in _ENTRIES]
    for flags in product((0, _BOOTS), repeat=len(_ENTRIES)):
        for at, flag in zip(_ENTRIES, flags, strict=True):
            raw[at] = flag
        if counting.sector_digest(bytes(raw)) == known.boot_sector:
            for number, (flag, seen) in enumerate(zip(flags, there, strict=True), 1):
                if flag != seen:
                    word = "not set" if flag else "set"
                    yield Finding("PI001", "", f"the boot flag of partition {number} is {word}")
            return
    if alone:
        yield Finding("PI001", "", "the boot sector is another: its flags or its code")


def root(image: Path, partition: Partition, census: Census | None) -> Iterator[Finding]:
    """PI002: unmounted, without errors on record, made as it was built, and its own checker finds nothing."""
    try:
        with rootfs.open_tree(image, partition.start) as tree:
            yield from (Finding("PI002", "", words) for words in tree.complaints())
            settings = tree.settings()
        if census is not None and settings != census.superblock:
            yield Finding("PI002", "", _made_otherwise(settings, census.superblock))
        rootfs.check(image, partition)
    except ImageError as error:
        yield Finding("PI002", "", _one_line(error))


def _one_line(error: ImageError) -> str:
    """What went wrong, and what the checking program has to say about it."""
    first, *said = (line.strip() for line in error.message.splitlines())
    return f"{first}: {'; '.join(said)}" if said else first


def _made_otherwise(found: str, due: str) -> str:
    """The settings that differ, of two lines of them."""
    there, wanted = (dict(word.split("=") for word in line.split()) for line in (found, due))
    changed = [f"{n} is {v}, not {wanted.get(n)}" for n, v in there.items() if v != wanted.get(n)]
    return f"it is made otherwise: {', '.join(changed)}"


def firmware(image: Path, start: int) -> Iterator[Finding]:
    """PI003: not marked as in use, both tables equal, and fsck.fat(8) finds nothing."""
    try:
        with window(image, start) as source:
            found = Fat(source)
            if source.read(0x41 if found.wide else 0x25, 1)[0] & 3:
                yield Finding("PI003", "", "it is marked as in use: it was not unmounted")
            first = source.read(found.fat_start, found.fat_size)
            for copy in range(1, found.copies):
                if source.read(found.fat_start + copy * found.fat_size, found.fat_size) != first:
                    yield Finding("PI003", "", "its two tables differ")
        fat.check(image, start)
    except ImageError as error:
        yield Finding("PI003", "", _one_line(error))


def checksum(image: Path) -> Iterator[Finding]:
    """PI004: what the checksum file beside it says, if it has one; flash refuses such a file too."""
    sums = image.parent / f"{image.name.partition('.')[0]}.sha256"
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        words = line.split()
        beside = image.parent / words[-1] if len(words) == 2 else None  # noqa: PLR2004 -- sha256sum(1)
        if beside is None or beside.parent != image.parent:
            yield Finding("PI004", "", f"`{sums.name}` is damaged")
        elif not beside.exists() or hash_file(beside) != words[0]:
            yield Finding("PI004", "", f"`{beside.name}` is not what `{sums.name}` says")


def strays(
    image: Path, patches: Sequence[Patch], boot: Partition, root: int, slots: Iterable[str]
) -> Iterator[Finding]:
    """PI004: a stamp changes its slots, the firmware's partition and the disk's signature, and nothing else."""
    allowed = [(boot.start, boot.size), (_SIGNATURE, 4)]
    with rootfs.open_tree(image, root) as found:
        for path in slots if patches else ():
            with suppress(ImageError):  # a slot that is gone or broken has rules of its own
                allowed += [(where, length) for _, where, length in found.extents(path)]
    for patch in patches:
        end = patch.offset + len(patch.data)
        if not any(start <= patch.offset and end <= start + length for start, length in allowed):
            yield Finding(
                "PI004", "", f"the stamp changes byte {patch.offset}, which is not its own"
            )


def patched_id(patches: Sequence[Patch]) -> str | None:
    """The signature that a stamp writes, if it does."""
    for patch in patches:
        if patch.offset == _SIGNATURE and len(patch.data) == 4:  # noqa: PLR2004 -- the MBR's signature
            return patch.data[::-1].hex()
    return None
