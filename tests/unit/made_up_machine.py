"""A machine that is a directory: /sys, /proc and /dev as the kernel shows them, with device nodes that are files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from piimage.flash.host import Host, Seen

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
USB = "pci0000:00/0000:00:14.0/usb1/1-2"
SATA = "pci0000:00/0000:00:17.0/ata1/host0"
MMC = "platform/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa"


@dataclass(frozen=True)
class MadeUp(Host):
    """Knows its device nodes by `blocks`, since only root can make real ones."""

    blocks: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def look(self, path):
        try:
            number = self.blocks.get(path.resolve(strict=True))
        except OSError:
            return None
        return Seen("block", number=number) if number else super().look(path)


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.host = MadeUp(self.root)
        self.process(os.getpid(), namespace=1)
        self.write("proc/swaps", "Filename Type Size Used Priority\n")
        self.at("proc/self").symlink_to(str(os.getpid()))

    def at(self, path: str) -> Path:
        return self.root / path

    def write(self, path: str, text: str = "") -> Path:
        place = self.at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        return place

    def link(self, path: str, target: Path | str) -> None:
        place = self.at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def disk(
        self, name: str, number: str, *, under: str = USB, size: int = 64 * MIB, **facts: str
    ) -> Path:
        """A disk of /sys with its node; `facts` are files below it, `__` for `/`."""
        inside = f"sys/devices/{under}/block/{name}"
        given = {
            "removable": "1",
            "ro": "0",
            "diskseq": "7",
            "queue__logical_block_size": "512",
            **facts,
        }
        return self._block(inside, name, number, size, given)

    def partition(self, disk: str, name: str, number: str) -> Path:
        place = self.at(f"sys/block/{disk}").resolve().relative_to(self.root)
        given = {"partition": name[-1], "ro": "0"}
        return self._block(f"{place}/{name}", name, number, MIB, given)

    def _block(self, inside, name, number, size, facts) -> Path:
        for fact, value in {"size": str(size // 512), "dev": number, **facts}.items():
            self.write(f"{inside}/{fact.replace('__', '/')}", f"{value}\n")
        self.link(f"sys/dev/block/{number}", self.at(inside))
        if "partition" not in facts:
            self.link(f"sys/block/{name}", self.at(inside))
        node = self.write(f"dev/{name}")
        os.truncate(node, size)
        major, minor = number.split(":")
        self.host.blocks[node] = int(major), int(minor)
        return node

    def process(self, pid: int, *, namespace: int, comm: str = "init", mountinfo: str = "") -> None:
        self.write(f"proc/{pid}/comm", f"{comm}\n")
        self.write(f"proc/{pid}/mountinfo", mountinfo)
        self.link(f"proc/{pid}/ns/mnt", f"mnt:[{namespace}]")

    def mount(
        self, number: str, point: str, source: str, *, kind: str = "ext4", pid: int | None = None
    ) -> None:
        path = self.at(f"proc/{pid or os.getpid()}/mountinfo")
        line = f"36 35 {number} / {point} rw,noatime shared:1 - {kind} {source} rw\n"
        path.write_text(path.read_text() + line)

    def opens(self, pid: int, path: Path, fd: int = 3) -> None:
        self.link(f"proc/{pid}/fd/{fd}", path)
