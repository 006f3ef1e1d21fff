"""Which partition is which: the root file system, the firmware's FAT, and what fstab mounts.

Nothing is guessed from numbers or labels: the root is the file system that holds os-release, the
firmware's partition the first FAT that holds firmware, and everything else is what the image's own
fstab says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.bases.guest_text import fstab, mount_unit
from piimage.bases.units import ADMIN, read_units
from piimage.disk import lvm
from piimage.disk.fat import open_fat
from piimage.disk.rootfs import open_tree, readable
from piimage.disk.window import window
from piimage.errors import ImageError, UnsupportedError
from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from piimage.bases.guest_text import FstabLine
    from piimage.facts import FileFact, Partition, PartitionTable

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
#: Names by which a Pi's boot ROM or firmware finds its way on a FAT (raspberrypi.com, "Boot folder
#: contents").
_FIRMWARE = re.compile(r"config\.txt|bootcode\.bin|start(4|_[a-z]+|4[a-z]+)?\.elf|autoboot\.txt")
_DEVICE = re.compile(r"/dev/(?:mmcblk[0-9]+p|nvme[0-9]+n[0-9]+p|[shv]d[a-z])([0-9]+)")
_MAPPED = re.compile(r"/dev/mapper/((?:[\w.+]|--)+)-((?:[\w.+]|--)+)")
_VOLUME = re.compile(r"/dev/(?!disk/|mapper/)([\w.+-]+)/([\w.+-]+)")
_BY = re.compile(r"/dev/disk/by-(label|uuid|partuuid)/(.+)")
#: Parts of the system that must lie in the root file system, because facts and components look there, and slots are
#: found there: keys of users in their homes.
_WHOLE = ("/etc", "/usr", "/var", "/var/lib", "/home", "/root")


def find_root(image: Path, table: PartitionTable) -> Partition:
    """The partition that holds os-release; raises `UnsupportedError` that says what was seen."""
    holders = []
    for partition in table.holders:
        if not readable(partition):
            continue
        with open_tree(image, partition.start) as tree:
            # A link in /etc may dangle in the image of a system whose /usr is elsewhere.
            if tree.read_files(OS_RELEASE, limit=1 << 16):
                holders.append(partition)
    if len(holders) == 1:
        return holders[0]
    if holders:
        names = ", ".join(partition.name for partition in holders)
        raise UnsupportedError(
            f"{names} all hold an operating system, one is wanted; saw: {seen(table)}"
        )
    if _has_ostree(image, table):
        raise UnsupportedError(
            "the image is of an ostree system such as Fedora IoT, whose files are not changed in place",
            hint="such a system is configured by Ignition at its first boot; Fedora Minimal can be used",
        )
    _damaged_volumes(image, table)
    raise UnsupportedError(
        f"no partition holds /etc/os-release in an ext4 or xfs file system; saw: {seen(table)}",
        hint="images of Debian, Raspberry Pi OS, Ubuntu and Fedora for the Raspberry Pi can be used",
    )


def _damaged_volumes(image: Path, table: PartitionTable) -> None:
    """Raise `ImageError` if volumes are missing from the table since their metadata are damaged."""
    for partition in table.partitions:
        if partition.filesystem is not None and partition.filesystem.type == lvm.MEMBER:
            with window(image, partition.start) as source:
                lvm.volumes(source, partition.size)


def _has_ostree(image: Path, table: PartitionTable) -> bool:
    """Whether a partition has no /etc of its own but deployments (Fedora IoT, /ostree/deploy)."""
    for partition in table.holders:
        if readable(partition):
            with open_tree(image, partition.start) as tree:
                if tree.list_tree(["/ostree/deploy"], 0):
                    return True
    return False


def mount_lines(
    text: str, listing: Mapping[str, FileFact], contents: Mapping[str, bytes]
) -> list[FstabLine]:
    """What is mounted at boot: by fstab, and by enabled units of the image's own (Fedora from 43 on, without fstab).

    `listing` has at least what lies below /etc/systemd/system, `contents` the files `*.mount` there. A place that
    fstab has as well counts once, as fstab has it.
    """
    own = {path: fact for path, fact in listing.items() if path.startswith(f"{ADMIN}/")}
    found = {}
    for name, unit in read_units(own, contents).items():
        if name.endswith(".mount") and unit.enabled:
            line = mount_unit(contents.get(unit.path, b"").decode(errors="surrogateescape"))
            if line is not None:
                found[line.target] = line
    listed = fstab(text)
    return [
        line for place, line in found.items() if place not in {x.target for x in listed}
    ] + listed


def find_firmware(image: Path, table: PartitionTable) -> Partition:
    """The first FAT with what a Pi's firmware reads; raises `UnsupportedError` if none has it."""
    for partition in table.partitions:
        if partition.filesystem is None or partition.filesystem.type != "vfat":
            continue
        with open_fat(image, partition.start) as fat:
            names = [path.lstrip("/").lower() for path, _ in fat.walk()]
        if any(_FIRMWARE.fullmatch(name) for name in names):
            return partition
    raise UnsupportedError(
        "no FAT partition holds the Raspberry Pi's firmware (`config.txt` or `start*.elf`); "
        f"saw: {seen(table)}",
        hint="is this an image for a Raspberry Pi?",
    )


def resolve_mounts(
    lines: Iterable[FstabLine], table: PartitionTable, root: Partition
) -> dict[str, int]:
    """What is mounted as `{mount point: partition number}`, without what lies elsewhere (tmpfs, NFS).

    `/` is always there. Raises `UnsupportedError` when the lines contradict `root`, or when a part of
    the system lies on a partition of its own.
    """
    found: dict[str, int] = {}
    for line in lines:
        partition = partition_of(line.spec, table)
        if partition is not None:
            found[line.target] = partition.number
    if found.setdefault("/", root.number) != root.number:
        raise UnsupportedError(
            f"fstab mounts {table.partition(found['/']).name} at `/`, but {root.name} holds os-release"
        )
    apart = [place for place in _WHOLE if place in found]
    if apart:
        raise UnsupportedError(
            f"`{apart[0]}` lies on a partition of its own, which is not supported"
        )
    return found


def firmware_mount(
    mounts: Mapping[str, int], firmware: Partition, listed: Iterable[FstabLine]
) -> str:
    """Where the firmware's partition is mounted; raises `ImageError` that quotes fstab if not."""
    for place, number in mounts.items():
        if number == firmware.number and place.startswith("/boot"):
            return place
    lines = [f"{line.spec} {line.target}" for line in listed]
    raise ImageError(
        f"fstab does not mount the firmware's partition {firmware.number} below `/boot`; "
        f"it says: {', '.join(shown(line) for line in lines[:6]) or 'nothing'}"
    )


def seen(table: PartitionTable) -> str:
    """The partitions in a few words: ``1 vfat `boot`, 2 LVM2_member, `fedora/root` xfs``."""
    parts = []
    for partition in table.holders:
        filesystem = partition.filesystem
        name = shown(partition.volume) if partition.volume else str(partition.number)
        words = [name, filesystem.type if filesystem else f"type {partition.type}"]
        if filesystem and filesystem.label:
            words.append(shown(filesystem.label))
        parts.append(" ".join(words))
    return ", ".join(parts) or "an empty table"


def partition_of(spec: str, table: PartitionTable) -> Partition | None:
    """What `LABEL=`, `UUID=`, `PARTUUID=` or a device name refers to; None if to nothing here."""
    kind, sign, value = spec.partition("=")
    by = _BY.fullmatch(spec)
    if by is not None:
        kind, value = by[1], by[2]
    elif not sign:
        device = _DEVICE.fullmatch(spec)
        kind, value = "device", device[1] if device else ""
    volume = volume_of(spec)
    if volume:
        kind, value = "volume", volume
    matching = [p for p in table.holders if value and _matches(p, kind.lower(), value, table)]
    return matching[0] if len(matching) == 1 else None


def volume_of(spec: str) -> str:
    """`GROUP/NAME` of the logical volume that a device's name is of, or "" (lvm(8), "VALID NAMES").

    In `/dev/mapper` a hyphen parts the two, and those in the names are doubled.
    """
    mapped = _MAPPED.fullmatch(spec)
    if mapped is not None:
        return "/".join(name.replace("--", "-") for name in mapped.groups())
    plain = _VOLUME.fullmatch(spec)
    return f"{plain[1]}/{plain[2]}" if plain is not None else ""


def _matches(partition: Partition, kind: str, value: str, table: PartitionTable) -> bool:
    filesystem = partition.filesystem
    match kind:
        case "label":
            return filesystem is not None and filesystem.label == value
        case "uuid":
            return filesystem is not None and filesystem.uuid.lower() == value.lower()
        case "partuuid":
            return value.lower() == f"{table.disk_id}-{partition.number:02x}"
        case "device":
            return int(value) == partition.number
        case "volume":
            return value == partition.volume
        case _:
            return False
