"""What a device is: its identity, from /sys, /dev and the path that the user gave. Nothing is opened here.

Attributes: https://docs.kernel.org/admin-guide/abi-stable-files.html (block), abi-testing (mmc, usb).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from piimage.errors import DeviceRefusedError
from piimage.flash.host import Host
from piimage.progress import human

if TYPE_CHECKING:
    from piimage.flash.host import Number, Seen

THIS_MACHINE = Host()
_LIST = "`piimage flash --list` shows the devices that there are"
#: /sys counts sizes in these, whatever a device's own sector.
_UNIT = 512
_BY_NAME = {
    "mmcblk": "mmc",
    "nvme": "nvme",
    "vd": "virtio",
    "loop": "loop",
    "dm-": "dm",
    "md": "md",
}
_BY_ID = Path("dev/disk/by-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A disk, a partition or a regular file, and what tells it from any other.

    `path` is as given, `node` what it leads to, `name` the kernel's (`sdb`) or the file's. A disk's `number` is its
    own, a file's `place` its file system and inode. `size` is in bytes, `sector` the logical sector. `diskseq`
    is another for every medium put in (Linux 5.15). `serial` is the CID of a card in an mmc slot; in a USB
    reader it is the reader's.
    """

    path: Path
    node: Path
    kind: Literal["disk", "partition", "file"]
    name: str
    size: int
    sector: int = _UNIT
    number: Number | None = None
    place: tuple[int, int] | None = None
    diskseq: int | None = None
    read_only: bool = False
    removable: bool = False
    transport: str = ""
    model: str = ""
    serial: str = ""
    by_id: tuple[Path, ...] = ()
    whole: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file: an image, not a card."""
        return self.kind == "file"

    @property
    def title(self) -> str:
        """One line for a question."""
        facts = [
            human(self.size) if self.size or not self.is_file else "an empty file",
            self.model,
            f"serial {self.serial}" if self.serial else "",
            self.transport,
        ]
        return f"`{self.node}`: " + ", ".join(fact for fact in facts if fact)

    @property
    def identity(self) -> tuple[object, ...]:
        """What must be the same when it is opened as when the question was asked."""
        name = None if self.number or self.place else self.node
        return self.number, self.place, name, self.diskseq, self.size, self.serial, self.sector

    def named_exactly(self) -> bool:
        """Whether the path that was given names this very device and no other that may come in its place."""
        return self.is_file or self.path.parent.resolve() / self.path.name in self.by_id

    def document(self) -> dict[str, Any]:
        """The device for JSON."""
        number = f"{self.number[0]}:{self.number[1]}" if self.number else None
        return {
            "path": str(self.path),
            "devname": str(self.node),
            "kind": self.kind,
            "number": number,
            "diskseq": self.diskseq,
            "size": self.size,
            "sector": self.sector,
            "read_only": self.read_only,
            "removable": self.removable,
            "transport": self.transport or None,
            "model": self.model or None,
            "serial": self.serial or None,
            "by_id": [str(path) for path in self.by_id],
        }


def read_device(path: Path, host: Host = THIS_MACHINE) -> Device:
    """What `path` is; raises `DeviceRefusedError` if it is neither a block device nor a regular file.

    A file that is not there yet is one of 0 bytes, without a `place`; but not in /dev, where a mistyped name of a
    card would become a file that fills the memory.
    """
    seen = host.look(path)
    if seen is None:
        return _absent(path, host)
    if seen.kind == "file":
        return Device(
            path=path,
            node=path.resolve(),
            kind="file",
            name=path.name,
            size=seen.size,
            place=seen.place,
        )
    if seen.number is None:
        what = "a directory" if path.is_dir() else "neither a block device nor a regular file"
        raise DeviceRefusedError(f"`{path}` is {what}", hint=_LIST)
    return _block(path, seen, host)


def _absent(path: Path, host: Host) -> Device:
    parent = path.parent.resolve()
    devices = host.at("dev").resolve()
    if parent == devices or devices in parent.parents or path.is_symlink():
        raise DeviceRefusedError(f"there is no `{path}`", hint=_LIST)
    if not parent.is_dir():
        raise DeviceRefusedError(f"there is no directory `{path.parent}`", hint=_LIST)
    return Device(path=path, node=parent / path.name, kind="file", name=path.name, size=0)


def _block(path: Path, seen: Seen, host: Host) -> Device:
    assert seen.number is not None  # noqa: S101 -- for mypy; a block device has one
    place = host.directory(seen.number)
    partition = (place / "partition").exists()
    disk = place.parent if partition else place
    transport = _transport(disk)
    kind = _text(disk / "device" / "type")
    # An eMMC chip is an mmc device too, and cannot be taken out.
    movable = (
        _text(disk / "removable") == "1" or transport == "usb" or (transport, kind) == ("mmc", "SD")
    )
    diskseq, size = _text(disk / "diskseq"), _text(place / "size")
    return Device(
        path=path,
        node=path.resolve(),
        kind="partition" if partition else "disk",
        name=place.name,
        size=int(size or 0) * _UNIT,
        sector=int(_text(disk / "queue" / "logical_block_size") or _UNIT),
        number=seen.number,
        diskseq=int(diskseq) if diskseq else None,
        read_only=_text(place / "ro") == "1" or _text(disk / "ro") == "1",
        removable=movable,
        transport=transport,
        model=_model(disk),
        serial=_serial(disk, transport),
        by_id=_by_id(seen.number, host),
        whole=disk.name,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""


def _transport(disk: Path) -> str:
    """How it is attached, by its place in the tree of devices."""
    if any(re.fullmatch(r"usb\d+", part) for part in disk.parts):
        return "usb"
    if any(re.fullmatch(r"ata\d+", part) for part in disk.parts):
        return "sata"
    return next((kind for start, kind in _BY_NAME.items() if disk.name.startswith(start)), "")


def _model(disk: Path) -> str:
    """Maker and model as the kernel has them; of an mmc card its `name`, such as `SC64G`."""
    device = disk / "device"
    words = (_text(device / "vendor"), _text(device / "model") or _text(device / "name"))
    # Of virtio disks `vendor` is a number.
    return " ".join(word for word in words if word and not word.startswith("0x"))


def _serial(disk: Path, transport: str) -> str:
    """CID of a card, serial number of a disk, or that of the USB device which it hangs on."""
    device = disk / "device"
    found = _text(device / "cid") or _text(device / "serial") or _text(disk / "serial")
    found = found or _product_data(device / "vpd_pg80")
    if found or transport != "usb":
        return found
    above = (
        _text(place / "serial")
        for place in device.resolve().parents
        if (place / "idVendor").exists()
    )
    return next(above, "")


def _product_data(page: Path) -> str:
    """Page 0x80 of SCSI's vital product data: four bytes of head, then the serial number."""
    try:
        return page.read_bytes()[4:].decode(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _by_id(number: Number, host: Host) -> tuple[Path, ...]:
    links = host.at(_BY_ID)
    found = [links / name for name in host.names(_BY_ID)]
    return tuple(link for link in found if (seen := host.look(link)) and seen.number == number)
