"""Every disk of this machine: those that may be written to, and of the others why not."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piimage.errors import DeviceRefusedError, ImageError, MissingToolError
from piimage.flash.card import read_label
from piimage.flash.device import THIS_MACHINE
from piimage.flash.guard import examine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.flash.guard import Examined
    from piimage.flash.host import Host
    from piimage.label import CardLabel

#: Memory and network in the guise of disks: nobody puts a card into them.
_NO_DISK = re.compile(r"(ram|zram|nbd|fd|mtdblock|dasd|rbd)\d+")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A disk as it was examined, the node that it holds if it is a card of ours, and whether it could be read."""

    examined: Examined
    label: CardLabel | None
    readable: bool

    @property
    def possible(self) -> bool:
        """Whether it may be written to as it is, or once it is unmounted on request."""
        return not self.examined.against(("mounted",))

    def document(self) -> dict[str, Any]:
        """The candidate for JSON."""
        label = self.label
        return {
            **self.examined.document(),
            "candidate": self.possible,
            "cluster": label.cluster if label else None,
            "node": label.node if label else None,
            "build": label.build if label else None,
        }


def disks(host: Host = THIS_MACHINE) -> Iterator[Path]:
    """The nodes of all disks that are or may get a medium, partitions left out."""
    for name in host.names("sys/block"):
        idle = name.startswith("loop") and not host.text(f"sys/block/{name}/loop/backing_file")
        if not _NO_DISK.fullmatch(name) and not idle:
            # The kernel writes `!` where a device lies in a directory below /dev.
            yield host.at(f"dev/{name.replace('!', '/')}")


def candidates(host: Host = THIS_MACHINE) -> tuple[Candidate, ...]:
    """The disks of this machine by name, those first that may be written to."""
    found = []
    for path in disks(host):
        with suppress(DeviceRefusedError):  # taken out while we looked
            found.append(candidate(path, host))
    return tuple(sorted(found, key=lambda each: not each.possible))


def candidate(path: Path, host: Host = THIS_MACHINE) -> Candidate:
    """One disk; raises `DeviceRefusedError` if there is none of this name any more."""
    examined = examine(path, settle=0, host=host)
    if not all(refusal.override for refusal in examined.refusals):
        return Candidate(examined, None, readable=True)
    try:
        return Candidate(examined, read_label(path), readable=True)
    except (ImageError, MissingToolError):
        return Candidate(examined, None, readable=False)
