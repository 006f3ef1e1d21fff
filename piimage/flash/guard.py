"""Whether a device may be written to: every reason why not, each with its name and the one override it accepts.

Nothing here writes, and nothing is unmounted unless `unmount` is called; never lazily, never by force.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piimage.disk.table import SECTOR
from piimage.errors import DeviceRefusedError, ToolFailedError
from piimage.flash import guard_use
from piimage.flash.device import THIS_MACHINE, read_device
from piimage.flash.guard_content import contents, foreign
from piimage.progress import human
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from piimage.flash.device import Device
    from piimage.flash.guard_content import Content
    from piimage.flash.guard_use import Family, Mount
    from piimage.flash.host import Host

#: What `--allow NAME` takes.
OVERRIDABLE = ("not-removable", "too-large", "sector-size", "foreign-content")
#: Larger than the cards that clusters are built with: a backup disk rather.
MOST = 512 << 30
#: udev looks into each card that is put in, and lets go within a moment.
SETTLE, _AGAIN, _PASSING = 2.0, 0.1, {"open-elsewhere", "claimed"}
#: Where a running system lives; also where live systems keep theirs.
_SYSTEM = ("/", "/boot", "/usr", "/var", "/home", "/etc", "/nix", "/cdrom")
_SYSTEM_BELOW = ("/boot/", "/usr/", "/run/live/", "/run/initramfs/live")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason not to write to a device; `override` is the option that the user may add, if there is one."""

    name: str
    reason: str
    override: str | None = None

    def document(self) -> dict[str, Any]:
        """The refusal for JSON."""
        return {"name": self.name, "reason": self.reason, "override": self.override}


@dataclass(frozen=True, slots=True)
class Examined:
    """A device, why it may not be written to, what is mounted of it, and what is on it where that could be read."""

    device: Device
    refusals: tuple[Refusal, ...]
    mounts: tuple[Mount, ...] = ()
    contents: tuple[Content, ...] = ()

    def against(self, accepted: Collection[str]) -> tuple[Refusal, ...]:
        """The refusals that remain when the user accepts those of these names; others have no override."""
        return tuple(r for r in self.refusals if r.override is None or r.name not in accepted)

    def document(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {
            **self.device.document(),
            "refusals": [refusal.document() for refusal in self.refusals],
            "mounts": [
                {"part": m.part, "point": m.point, "type": m.filesystem} for m in self.mounts
            ],
            "contents": [
                {
                    "partition": c.number,
                    "size": c.size,
                    "type": c.type or None,
                    "label": c.label or None,
                }
                for c in self.contents
            ],
        }


def examine(
    path: Path,
    *,
    image_size: int = 0,
    source: Path | None = None,
    settle: float = SETTLE,
    host: Host = THIS_MACHINE,
) -> Examined:
    """Look at `path` as the target of an image of `image_size` bytes that is read from `source`.

    For `settle` seconds a device that only some program has open is looked at again.

    Raises `DeviceRefusedError` where there is no device or file, and `MissingToolError` where blkid or sfdisk
    is missing. What cannot be seen without privilege is not refused here: `hold` opens the device.
    """
    last = time.monotonic() + settle
    while True:
        found = _examine(path, image_size, source, host)
        firm = {refusal.name for refusal in found.refusals if refusal.override is None}
        if not firm or not firm <= _PASSING or time.monotonic() >= last:
            return found
        time.sleep(_AGAIN)


def _examine(path: Path, image_size: int, source: Path | None, host: Host) -> Examined:
    device = read_device(path, host)
    kin = guard_use.family(device, host)
    mounts = tuple(guard_use.mounts(kin, host))
    used = in_use(kin, host)
    system = list(_system(device, host))
    found = [
        *_kind(device),
        *system,
        *_source(device, source, host),
        *used,
        *(() if system else _mounted(mounts)),
        *(() if mounts or used else _claimed(device)),
        *_size(device, image_size),
    ]
    if any(refusal.override is None for refusal in found):
        return Examined(device, tuple(found), mounts)
    holds, foreign = _contents(device)
    return Examined(device, (*found, *foreign), mounts, holds)


def admit(examined: Examined, accepted: Collection[str] = ()) -> Device:
    """The device, if nothing that the user has not accepted stands against it; else `DeviceRefusedError`."""
    remaining = examined.against(accepted)
    if remaining:
        raise refused(examined.device, remaining)
    return examined.device


def refused(device: Device, refusals: Collection[Refusal]) -> DeviceRefusedError:
    """The error that names every reason, and the options that would do if there are no others."""
    if len(refusals) == 1:
        (only,) = refusals
        message = f"`{device.path}` is refused ({only.name}): {only.reason}"
    else:
        lines = "".join(f"\n    {refusal.name}: {refusal.reason}" for refusal in refusals)
        message = f"`{device.path}` is refused:{lines}"
    options = [refusal.override for refusal in refusals if refusal.override]
    hint = "`piimage flash --list` shows the devices that can be written to"
    if len(options) == len(refusals):
        hint = f"if it is the right one: {' '.join(dict.fromkeys(options))}"
    return DeviceRefusedError(message, hint=hint, refusals=[refusal.name for refusal in refusals])


def unmount(examined: Examined) -> None:
    """Unmount what this process sees mounted of the device, plainly: never lazily, never by force.

    Raises `DeviceRefusedError` if a mount stays, because it is busy or because it is in another namespace.
    """
    for mount in examined.mounts:
        if not mount.ours:
            words = f"only a process in its namespace (such as {mount.pid}) can unmount it"
            raise refused(examined.device, [_mount_refusal(mount, words)])
    # The last mounted first: file systems may be mounted inside one another.
    for mount in sorted(examined.mounts, key=lambda m: m.point.count("/"), reverse=True):
        try:
            run(["umount", "--", mount.point])
        except ToolFailedError as error:
            words = error.message.splitlines()[-1].strip()
            raise refused(examined.device, [_mount_refusal(mount, words)]) from error


def in_use(kin: Family, host: Host) -> list[Refusal]:
    """Uses that an exclusive open would not see, or would see without a name for them."""
    found = [
        Refusal("swap", f"this machine swaps to `{part}`: `swapoff` ends that")
        for part in guard_use.swaps(kin, host)
    ]
    found += [
        Refusal("in-a-volume", f"`{part}` is part of `{above}`, which is active")
        for part, above in guard_use.holders(kin, host)
    ]
    for part, loop in guard_use.loops(kin, host):
        found.append(
            Refusal("under-a-loop", f"`/dev/{loop}` plays `{part}`: `losetup -d` ends that")
        )
    for opener in guard_use.openers(kin, host):
        who = f"`{opener.program or 'a program'}` (process {opener.pid})"
        found.append(Refusal("open-elsewhere", f"{who} has `{opener.part}` open"))
    return found


def _kind(device: Device) -> Iterator[Refusal]:
    if device.kind == "partition":
        yield Refusal(
            "partition", f"it is a partition of `{device.whole}`: an image needs the whole disk"
        )
    if device.name.startswith("sr"):
        yield Refusal("optical", "it is a drive for discs")
    if device.transport in ("dm", "md"):
        yield Refusal("volume", "it is a volume made of other devices, not a card")
    if device.read_only:
        yield Refusal("read-only", "it is read-only: is the lock switch of the card on?")
    if not device.is_file and not device.size:
        yield Refusal("no-medium", "there is no card in it")
    if not device.is_file and not device.removable:
        words = f"it is neither removable nor on USB nor in an SD slot ({device.transport or 'unknown bus'})"
        yield Refusal("not-removable", words, "--allow not-removable")


def _system(device: Device, host: Host) -> Iterator[Refusal]:
    """A disk that this machine runs from: directly, or beneath a volume or a loop."""
    if device.is_file:
        return
    found: dict[str, None] = {}
    for pid in ("1", "self"):
        for number, point, _, source in guard_use.table(pid, host):
            lives = point in _SYSTEM or point.startswith(_SYSTEM_BELOW)
            if lives and device.whole in guard_use.disks_of(number, source, host):
                found.setdefault(point)
    if found:
        where = ", ".join(f"`{point}`" for point in found)
        yield Refusal("system-disk", f"this machine runs from it ({where})")


def _source(device: Device, source: Path | None, host: Host) -> Iterator[Refusal]:
    if source is None:
        return
    seen = host.look(source)
    same = seen is not None and (
        (device.place is not None and seen.place == device.place)
        or (device.number is not None and seen.number == device.number)
    )
    if same:
        yield Refusal("source", "it is what the image is read from")
    elif device.whole and device.whole in guard_use.disks_under(source, host):
        yield Refusal("source", f"the image `{source}` lies on it")


def _mounted(mounts: Collection[Mount]) -> Iterator[Refusal]:
    """Each mount of ours; of those in other namespaces one for each part, since a container may have hundreds."""
    for mount in mounts:
        if mount.ours:
            yield _mount_refusal(mount, override="--unmount")
    for mount in {mount.part: mount for mount in mounts if not mount.ours}.values():
        yield _mount_refusal(mount, f"in the mount namespace of process {mount.pid}")


def _mount_refusal(mount: Mount, words: str = "", override: str | None = None) -> Refusal:
    where = f"`{mount.part}` ({mount.filesystem}) is mounted at `{mount.point}`"
    name = "mounted" if mount.ours else "mounted-elsewhere"
    return Refusal(name, f"{where}: {words}" if words else where, override)


def _size(device: Device, image_size: int) -> Iterator[Refusal]:
    """Of a device; a file becomes as large as it must."""
    if device.is_file:
        return
    if 0 < device.size < image_size:
        has, needed = human(device.size), human(image_size)
        if has == needed:
            has, needed = f"{device.size} bytes", f"{image_size}"
        yield Refusal("too-small", f"it has {has} and the image needs {needed}")
    if device.size > MOST:
        words = f"it has {human(device.size)}: a disk rather than a card"
        yield Refusal("too-large", words, "--allow too-large")
    if device.sector != SECTOR:
        words = f"its sectors have {device.sector} bytes, and an image's partition table counts in {SECTOR}"
        yield Refusal("sector-size", words, "--allow sector-size")


def _claimed(device: Device) -> list[Refusal]:
    """Whether the kernel would give us the device for ourselves; says nothing where we may not ask."""
    if device.is_file or not device.size:
        return []
    try:
        os.close(os.open(device.node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return [Refusal("claimed", "the kernel or a program has it for itself")]
    return []


def _contents(device: Device) -> tuple[tuple[Content, ...], list[Refusal]]:
    """What is on it, and the refusal that this may be: only where we may read it."""
    if not device.size or not os.access(device.node, os.R_OK):
        return (), []
    try:
        found = contents(device.node, device.size)
    except ToolFailedError as error:
        return (), [Refusal("unreadable", error.message.splitlines()[0])]
    strange = [] if device.is_file else foreign(device.node, found)
    if not strange:
        return found, []
    what = ", ".join(f"{c.words} in partition {c.number}" if c.number else c.words for c in strange)
    return found, [Refusal("foreign-content", f"it holds {what}", "--allow foreign-content")]
