"""The machine as its kernel tells of it in /sys, /proc and /dev; a test gives the root of a made-up one."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Major and minor of a device, as in `8:16`.
Number = tuple[int, int]
#: linux/loop.h: LOOP_GET_STATUS64, and the beginning of `struct loop_info64`: lo_device, lo_inode, lo_rdevice.
_LOOP_GET_STATUS64, _LOOP_INFO_SIZE = 0x4C05, 232
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a path leads to: a block device by its `number`, anything else by file system and inode (`place`)."""

    kind: str
    number: Number | None = None
    place: tuple[int, int] | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    """Where /sys, /proc and /dev are."""

    root: Path = Path("/")

    def at(self, path: str | Path) -> Path:
        """The place of a path of that machine, which is counted from its root unless it begins with the root."""
        given = Path(path)
        return given if given.is_relative_to(self.root) else self.root / str(path).lstrip("/")

    def text(self, path: str | Path) -> str:
        """A small file of the kernel's, stripped; empty if it is not there or not for us."""
        try:
            return self.at(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def names(self, path: str | Path) -> list[str]:
        """Names in a directory, sorted; none if it is not there or not for us."""
        try:
            return sorted(os.listdir(self.at(path)))  # noqa: PTH208 -- thousands of names: paths take long
        except OSError:
            return []

    def look(self, path: Path) -> Seen | None:
        """What a path of ours leads to (links followed), or None if to nothing."""
        try:
            status = path.stat()
        except OSError:
            return None
        if stat.S_ISBLK(status.st_mode):
            return Seen("block", number=(os.major(status.st_rdev), os.minor(status.st_rdev)))
        kind = "file" if stat.S_ISREG(status.st_mode) else "other"
        return Seen(kind, place=(status.st_dev, status.st_ino), size=status.st_size)

    def directory(self, number: Number) -> Path:
        """The directory in /sys of a block device, links resolved."""
        return self.at(f"sys/dev/block/{number[0]}:{number[1]}").resolve()

    def processes(self) -> Iterator[int]:
        """Numbers of the processes that there are."""
        yield from (int(name) for name in self.names("proc") if name.isdecimal())

    def backing(self, loop: str) -> Seen | None:
        """What the loop device of this kernel name (`loop3`) plays; None if it plays nothing or it is not told.

        The kernel's own numbers where the device may be asked: the path in /sys is as it was for whoever set the
        loop up, in another mount namespace perhaps.
        """
        path = self.text(f"sys/block/{loop}/loop/backing_file")
        if not path:
            return None
        try:
            fd = os.open(self.at(f"dev/{loop}"), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return self.look(self.at(path.removesuffix(_DELETED)))
        try:
            raw = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_SIZE))
        except OSError:
            return self.look(self.at(path.removesuffix(_DELETED)))
        finally:
            os.close(fd)
        device, inode, number = struct.unpack_from("=3Q", raw)
        if number:
            return Seen("block", number=(os.major(number), os.minor(number)))
        return Seen("file", place=(device, inode))
