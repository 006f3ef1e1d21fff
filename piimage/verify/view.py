"""A read-only view of a finished image: what is where, and what files hold. Nothing is mounted or run."""

from __future__ import annotations

import posixpath
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from piimage.bases.units import VENDOR
from piimage.disk import census, rootfs
from piimage.disk.fat_reader import Fat
from piimage.disk.window import window
from piimage.distros import boot_loader
from piimage.distros.firmware_config import cmdline_name, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from piimage.disk.census import Seen
    from piimage.disk.slots import Patch
    from piimage.facts import PartitionTable

#: Longer files are not looked into.
_LIMIT = 16 << 20
_MAX_HOPS = 8
#: What gives the disk another id: raspi-config's script up to 2022-04, that of raspberrypi-sys-mods up to bookworm, and
#: from trixie on `set_partuuid` in the initramfs. They put the new one into fstab and the command line.
_FIRST_BOOTS = (
    "init=/usr/lib/raspi-config/init_resize.sh",
    "init=/usr/lib/raspberrypi-sys-mods/firstboot",
)
_RESIZE, _RESIZES = "resize", f"{VENDOR}/rpi-resize.service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the two file systems of an image lie: partition numbers, and where fstab has the firmware's.

    `apart` are other Linux file systems: mount point -> partition number.
    """

    root: int
    firmware: int
    mountpoint: str
    apart: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One image. Paths are those of the running node; those below `place.mountpoint` are on the FAT."""

    table: PartitionTable
    place: Place
    boot_sector: str
    root: Mapping[str, Seen]
    firmware: Mapping[str, Seen]
    reader: Callable[[str], bytes | None] = field(repr=False)

    def seen(self, path: str) -> Seen | None:
        """What is at exactly `path`."""
        inside = self.on_firmware(path)
        return self.root.get(path) if inside is None else self.firmware.get(inside)

    def read(self, path: str) -> bytes | None:
        """The content of a file, links followed; None for what is no file, or over 16 MiB."""
        return self.reader(path)

    def text(self, path: str) -> str:
        """The content as text, "" for what is not there; odd bytes survive."""
        return (self.read(path) or b"").decode(errors="surrogateescape")

    def resolves(self, path: str) -> bool:
        """Whether `path` leads to a file, by links anywhere on the way."""
        for _ in range(_MAX_HOPS):
            at = ""
            for part in posixpath.normpath(path).strip("/").split("/"):
                at += f"/{part}"
                seen = self.root.get(at)
                if seen is None:
                    return False
                if seen.kind == "link":
                    rest = posixpath.normpath(path)[len(at) :]
                    path = posixpath.join(posixpath.dirname(at), seen.target) + rest
                    break
            else:
                return self.root[at].kind == "file"
        return False

    def below(self, folder: str) -> Iterator[str]:
        """Paths of files, links and folders right in `folder`, in order of their bytes."""
        found = (p for p in self._all() if p.rpartition("/")[0] == folder.rstrip("/"))
        yield from sorted(found, key=lambda p: p.encode(errors="surrogateescape"))

    def on_firmware(self, path: str) -> str | None:
        """The path on the FAT (from `/`), or None for what is not on it."""
        place = self.place.mountpoint
        return path[len(place) :] if path.startswith(f"{place}/") else None

    @property
    def config(self) -> str:
        """config.txt with what it includes."""
        return whole(lambda name: self.text(f"{self.place.mountpoint}/{name}"))

    @property
    def cmdline(self) -> str:
        """The path of the kernel's command line that is in force: of the boot loader's entries the one for now."""
        entries = self.entries
        return entries[0] if entries else self._of_firmware

    @property
    def renews_disk_id(self) -> bool:
        """Whether the first boot, as Raspberry Pi OS has it, gives the disk another id."""
        tokens = self.tokens
        grows = _RESIZE in tokens and _RESIZES in self.root
        return grows or any(token in tokens for token in _FIRST_BOOTS)

    @property
    def entries(self) -> list[str]:
        """The boot loader's entries, where these have the command line and not the firmware's partition."""
        if self.text(self._of_firmware).split():
            return []
        return boot_loader.entries(p for p in self.root if boot_loader.ENTRIES in p)

    @property
    def tokens(self) -> list[str]:
        """The words of the command line that count: those of its first line, or of the entry's options."""
        return self.tokens_of(self.cmdline)

    def tokens_of(self, path: str) -> list[str]:
        """The words of the command line at `path`."""
        text = self.text(path)
        entry = path.endswith(".conf")
        return (boot_loader.options(text) if entry else text.partition("\n")[0]).split()

    @property
    def _of_firmware(self) -> str:
        return f"{self.place.mountpoint}/{cmdline_name(self.config)}"

    def _all(self) -> Iterator[str]:
        yield from self.root
        yield from (self.place.mountpoint + path for path in self.firmware)


@contextmanager
def opened(
    image: Path,
    table: PartitionTable,
    place: Place,
    patches: Sequence[Patch] = (),
    *,
    root: Mapping[str, Seen] | None = None,
) -> Iterator[View]:
    """The view of a raw image as `patches` would make it.

    `root` is what is known of the root file system already. Raises `ImageError` for a file system that cannot be
    read.
    """
    start = table.partition(place.root).start
    boot = table.partition(place.firmware).start
    files = census.of_firmware(image, boot, patches)
    with rootfs.open_tree(image, start, patches) as tree, window(image, boot, patches) as source:
        fat = Fat(source)
        known = census.of_all(image, table, place.root, place.apart) if root is None else root

        def read(path: str) -> bytes | None:
            for mount, number in place.apart.items():
                if path.startswith(f"{mount}/") and not path.startswith(f"{place.mountpoint}/"):
                    return _inside(image, table.partition(number).start, path[len(mount) :])
            if path.startswith(f"{place.mountpoint}/"):
                entry = fat.find(path[len(place.mountpoint) :])
                short = entry is not None and not entry.directory and entry.size <= _LIMIT
                return fat.content(entry) if entry is not None and short else None
            return tree.read_files([path], limit=_LIMIT).get(path)

        yield View(
            table=table,
            place=place,
            boot_sector=census.boot_sector(image),
            root=known,
            firmware=files,
            reader=read,
        )


def _inside(image: Path, start: int, path: str) -> bytes | None:
    """A file of another file system of the image."""
    return rootfs.read_files(image, start, [path], limit=_LIMIT).get(path)
