"""Who uses a device, or anything on it: mounts in every namespace, swap, volumes, loops, programs.

An exclusive open sees only some of this: not a loop device on top, not another program's plain open.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from piimage.flash.device import Device
    from piimage.flash.host import Host, Number, Seen

_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "fuse"}
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Family:
    """A disk with its partitions (`numbers`: number -> kernel name), or a regular file (`place`)."""

    numbers: Mapping[Number, str]
    place: tuple[int, int] | None
    name: str

    def member(self, seen: Seen | None) -> str | None:
        """The name of the part that a path has led to; None if it has led elsewhere."""
        if seen is None:
            return None
        if seen.number is not None:
            return self.numbers.get(seen.number)
        return self.name if seen.place == self.place else None


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system in use: of which part, where, of which type; `ours` if this process sees it there."""

    part: str
    point: str
    filesystem: str
    ours: bool
    pid: int


@dataclass(frozen=True, slots=True)
class Opener:
    """A program that has a part open."""

    part: str
    pid: int
    program: str


def family(device: Device, host: Host) -> Family:
    """The disk that `device` is, or is a partition of, with all its partitions."""
    if device.number is None:
        return Family({}, device.place, device.name)
    place = host.directory(device.number)
    disk = place.parent if device.kind == "partition" else place
    parts = [disk, *(p.parent for p in sorted(disk.glob("*/partition")))]
    numbers = {number: part.name for part in parts if (number := _number(host.text(part / "dev")))}
    return Family({**numbers, device.number: device.name}, None, device.name)


def mounts(kin: Family, host: Host) -> list[Mount]:
    """Every mount of a part, in each namespace that a process lives in; our own namespace's first."""
    found: dict[tuple[str, str, str], Mount] = {}
    me = os.getpid()
    seen = set()
    for pid in [me, *(p for p in host.processes() if p != me)]:
        space = namespace(pid, host)
        if space and space in seen:
            continue
        seen.add(space)
        ours = pid == me or (bool(space) and space == namespace(me, host))
        for number, point, kind, source in table(pid, host):
            part = kin.numbers.get(number) or _by_source(kin, number, source, host)
            if part:
                found.setdefault((part, point, kind), Mount(part, point, kind, ours, pid))
    return list(found.values())


def namespace(pid: int, host: Host) -> str:
    """The mount namespace of a process, such as `mnt:[4026531841]`; empty if it is not told."""
    try:
        return str(host.at(f"proc/{pid}/ns/mnt").readlink())
    except OSError:
        return ""


def table(pid: int | str, host: Host) -> Iterator[tuple[Number, str, str, str]]:
    """`(number, mount point, type, source)` of each line of a process's mountinfo, proc_pid_mountinfo(5)."""
    for line in host.text(f"proc/{pid}/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        number = _number(fields[2]) if len(fields) > 4 else None  # noqa: PLR2004 -- the fifth is the mount point
        if number is not None and len(kind) > 1:
            yield number, _unescaped(fields[4]), kind[0], _unescaped(kind[1])


def swaps(kin: Family, host: Host) -> list[str]:
    """Parts that are swapped to, proc_swaps(5)."""
    lines = host.text("proc/swaps").splitlines()[1:]
    paths = [
        _unescaped(line.split()[0]).removesuffix(" (deleted)") for line in lines if line.split()
    ]
    return _members(kin, (host.look(host.at(path)) for path in paths))


def holders(kin: Family, host: Host) -> list[tuple[str, str]]:
    """`(part, what holds it)`: device mapper (LVM, LUKS), md, bcache; file systems of several devices (btrfs)."""
    found = []
    for number, name in kin.numbers.items():
        place = host.directory(number)
        found += [(name, above) for above in host.names(place / "holders")]
        found += [
            (name, f"btrfs {uuid}")
            for uuid in host.names("sys/fs/btrfs")
            if name in host.names(f"sys/fs/btrfs/{uuid}/devices")
        ]
    return found


def slaves(kin: Family, host: Host) -> list[str]:
    """The devices that this one is made of, if it is a volume and no disk."""
    return [
        name for number in kin.numbers for name in host.names(host.directory(number) / "slaves")
    ]


def loops(kin: Family, host: Host) -> list[tuple[str, str]]:
    """`(part, loop device)` of each loop that plays a part."""
    names = [name for name in host.names("sys/block") if re.fullmatch(r"loop\d+", name)]
    return [(part, name) for name in names if (part := kin.member(host.backing(name)))]


def openers(kin: Family, host: Host) -> list[Opener]:
    """Programs but this one that have a part open, as far as we may look at them (root: all)."""
    found = {}
    remote: dict[str, tuple[str, ...]] = {}
    for pid in host.processes():
        if pid == os.getpid():
            continue
        # Thousands of links on a desktop: what is the same for all of a process is asked once.
        names = host.names(f"proc/{pid}/fd")
        if not names:
            continue
        place, space = host.at(f"proc/{pid}/fd"), namespace(pid, host)
        if space not in remote:
            remote[space] = _remote(pid, host)
        for name in names:
            link = place / name
            part = None if _below(link, remote[space]) else kin.member(host.look(link))
            if part:
                found[part, pid] = Opener(part, pid, host.text(f"proc/{pid}/comm"))
    return list(found.values())


def _remote(pid: int, host: Host) -> tuple[str, ...]:
    """Where file systems of servers and programs are mounted: to look at a file there may take for ever."""
    return tuple(
        f"{point}/"
        for _, point, kind, _ in table(pid, host)
        if kind in _REMOTE or kind.startswith("fuse.")
    )


def _below(link: Path, points: tuple[str, ...]) -> bool:
    try:
        return bool(points) and str(link.readlink()).startswith(points)
    except OSError:
        return True


def disks_under(path: Path, host: Host) -> set[str]:
    """The names of the disks that a path of ours lies on."""
    path = path.resolve()
    best: tuple[int, Number, str] | None = None
    for number, point, _, source in table(os.getpid(), host):
        place = host.at(point)
        if (path == place or place in path.parents) and (best is None or len(point) >= best[0]):
            best = (len(point), number, source)
    found = set() if best is None else disks_of(best[1], best[2], host)
    seen = host.look(path)
    if seen is not None and seen.number is not None:
        found |= below(seen.number, host)
    return found


def disks_of(number: Number, source: str, host: Host) -> set[str]:
    """The names of the disks that hold a mounted file system."""
    if number[0] == 0 and source.startswith("/"):
        seen = host.look(host.at(source))
        number = seen.number if seen is not None and seen.number is not None else number
    return below(number, host)


def below(number: Number, host: Host) -> set[str]:
    """The disk of a block device, and those beneath it where it is a volume or a loop."""
    place = host.directory(number)
    if not place.is_dir():
        return set()
    disk = place.parent if (place / "partition").exists() else place
    found = {disk.name}
    for name in host.names(place / "slaves"):
        lower = _number(host.text(place / "slaves" / name / "dev"))
        found |= below(lower, host) if lower else set()
    if disk.name.startswith("loop"):
        seen = host.backing(disk.name)
        if seen is not None and seen.number is not None:
            found |= below(seen.number, host)
        elif seen is not None and seen.place is not None:
            device = seen.place[0]
            found |= below((os.major(device), os.minor(device)), host)
    return found


def _by_source(kin: Family, number: Number, source: str, host: Host) -> str | None:
    """A file system like btrfs has a number of its own: go by the device that it was mounted from."""
    if number[0] != 0 or not source.startswith("/"):
        return None
    seen = host.look(host.at(source))
    return kin.member(seen) if seen is not None and seen.kind == "block" else None


def _members(kin: Family, seen: Iterable[Seen | None]) -> list[str]:
    return [part for each in seen if (part := kin.member(each))]


def _number(text: str) -> Number | None:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
