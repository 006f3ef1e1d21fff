"""What a card boots: kernel, initrd, device trees and command line, as its config.txt or its boot loader names them.

`layout` is pure; `read_card` and `extract` read the FAT without an appliance, a stamp's patches as if written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from piimage.bases.layout import find_root
from piimage.boot import entries
from piimage.disk import fat, rootfs
from piimage.disk.table import read_table
from piimage.distros.firmware_config import cmdline_name, whole
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from piimage.boot.disk import Disk

#: An initrd with all modules and firmware was seen at 90 MiB.
_LIMIT = 512 << 20
#: Filters of config.txt that hold for every 64-bit board; lines below any other concern one board.
_FILTERS = ("all",)
_MACHINE_ID = "/etc/machine-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Names on the firmware partition, from its root; `initrd` is None where there is none.

    With `entries_start` kernel, initrd and command line are on the Linux file system at that byte.
    """

    kernel: str
    initrd: str | None
    cmdline: str
    dtbs: tuple[str, ...]
    entries_start: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What was built: `size` and `root_start` in bytes, `cmdline` without newline, `machine_id` as it lies there."""

    disk: Disk
    size: int
    firmware_start: int
    root_start: int
    layout: Layout
    cmdline: str
    machine_id: str


def layout(config: str, names: Iterable[str]) -> Layout:
    """What the firmware would load, from config.txt and the names of all files beside it.

    Only settings that hold for all boards count. Raises `ImageError` when no kernel is there.
    """
    files = {name.strip("/"): name.strip("/") for name in names}
    settings = _settings(config)
    prefix = settings.get("os_prefix", "")
    kernel = prefix + settings.get("kernel", "kernel8.img")
    if kernel not in files:
        raise ImageError(
            f"the firmware partition has no kernel `{kernel}`, which its config.txt names"
        )
    initrd = settings.get("initramfs", "").split()[:1]
    if not initrd and settings.get("auto_initramfs") == "1":
        initrd = [
            settings.get("kernel", "kernel8.img").replace("kernel", "initramfs").replace(".img", "")
        ]
    found = prefix + initrd[0] if initrd else None
    if found is not None and found not in files:
        raise ImageError(
            f"the firmware partition has no initrd `{found}`, which its config.txt names"
        )
    return Layout(
        kernel=kernel,
        initrd=found,
        cmdline=_prefixed(files, prefix, settings.get("cmdline", "cmdline.txt")),
        dtbs=_dtbs(files),
    )


def _dtbs(files: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(n for n in files if n.endswith(".dtb") and "/overlays/" not in f"/{n}"))


def _prefixed(files: dict[str, str], prefix: str, name: str) -> str:
    """The firmware takes a file without the prefix when there is none with it."""
    return prefix + name if prefix + name in files else name


def _settings(config: str) -> dict[str, str]:
    """`key=value` and `initramfs NAME` lines outside filters of single boards; the last one wins."""
    found: dict[str, str] = {}
    active = True
    for raw in config.splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("["):
            active = line.strip("[]").strip().lower() in _FILTERS
        elif active and line:
            key, _, value = line.partition("=") if "=" in line else line.partition(" ")
            found[key.strip()] = value.strip()
    return found


def read_card(disk: Disk) -> Card:
    """Read what was built; raises `ImageError` for one that has no firmware partition, kernel or command line."""
    image, patches = disk.image, disk.patches
    table = read_table(image)
    parts = [p for p in table.holders if p.filesystem is not None]
    firmware = next((p for p in parts if p.filesystem and p.filesystem.type == "vfat"), None)
    if firmware is None:
        raise ImageError(f"`{image.name}` has no firmware partition")
    root = next((p for p in parts if p.number > firmware.number), None)
    names = list(fat.list_tree(image, firmware.start, patches=patches))

    def text(name: str) -> str:
        found = fat.read_files(image, firmware.start, [name], patches=patches)
        return found.get(name, b"").decode(errors="replace")

    config = whole(text)
    own = cmdline_name(config)
    entry = None
    if not fat.read_files(image, firmware.start, [own], patches=patches).get(own, b"").strip():
        entry = entries.newest(image, parts)
    if entry is not None:
        root = find_root(image, table)
        place = Layout(
            kernel=entry.kernel,
            initrd=entry.initrd,
            cmdline=entry.path,
            dtbs=_dtbs(name.strip("/") for name in names),
            entries_start=entry.start,
        )
        cmdline = entry.cmdline
    else:
        place = layout(config, names)
        found = fat.read_files(image, firmware.start, [place.cmdline], patches=patches)
        content = found.get(place.cmdline, b"")
        cmdline = content.decode(errors="surrogateescape").strip().partition("\n")[0].strip()
    if not cmdline:
        raise ImageError(f"the firmware partition of `{image.name}` has no kernel command line")
    return Card(
        disk=disk,
        size=table.size,
        firmware_start=firmware.start,
        root_start=root.start if root is not None else firmware.start + firmware.size,
        layout=place,
        cmdline=cmdline,
        machine_id=_machine_id(image, root.start)
        if root is not None and rootfs.readable(root)
        else "",
    )


def _machine_id(image: Path, start: int) -> str:
    return (
        rootfs.read_files(image, start, [_MACHINE_ID])
        .get(_MACHINE_ID, b"")
        .decode(errors="replace")
        .strip()
    )


def device_tree(names: Iterable[str], patterns: Iterable[str]) -> str:
    """The first of `names` that matches the first pattern that any matches; raises `ImageError`."""
    known = list(names)
    for pattern in patterns:
        for name in known:
            if re.fullmatch(pattern, PurePosixPath(name).name):
                return name
    raise ImageError("the firmware partition has no device tree of a Raspberry Pi 3 Model B")


def extract(card: Card, name: str, directory: Path) -> Path:
    """Copy a file of the firmware partition, or of the boot loader's, into `directory`; returns the copy."""
    image, start, patches = card.disk.image, card.firmware_start, card.disk.patches
    place, apart = "firmware", card.layout.entries_start
    if apart is not None and name in (card.layout.kernel, card.layout.initrd):
        place = "boot"
        content = rootfs.read_files(image, apart, [name], limit=_LIMIT).get(name)
    else:
        content = fat.read_files(image, start, [name], limit=_LIMIT, patches=patches).get(name)
    if content is None:
        raise ImageError(f"the {place} partition of `{image.name}` has no file `{name}`")
    target = directory / PurePosixPath(name).name
    target.write_bytes(entries.unpacked(content) if name == card.layout.kernel else content)
    return target
