"""Open a device for writing so that nobody else has it, and so that it is the one that was asked about."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from piimage.errors import DeviceRefusedError, MissingToolError
from piimage.flash import guard_use
from piimage.flash.device import THIS_MACHINE, read_device
from piimage.flash.guard import SETTLE, Refusal, in_use, refused
from piimage.host import by_sudo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.flash.device import Device
    from piimage.flash.host import Host

#: linux/fs.h. BLKGETDISKSEQ came with Linux 5.15.
_BLKROGET, _BLKRRPART, _BLKGETSIZE64, _BLKGETDISKSEQ = 0x125E, 0x125F, 0x80081272, 0x80081280
_OPEN = os.O_CLOEXEC | os.O_NOCTTY
_AGAIN = 0.1
_REREADS = 20


@dataclass(frozen=True, slots=True)
class Held:
    """A device that is open for reading and writing, ours alone."""

    device: Device
    fd: int

    def reread_table(self) -> bool:
        """Have the kernel read the partition table anew; False if something kept it from doing so for 2 s.

        There is nothing to do for a file, or a loop device that is not scanned for partitions.
        """
        if self.device.is_file:
            return True
        for attempt in range(_REREADS):
            if attempt:
                time.sleep(_AGAIN)
            try:
                fcntl.ioctl(self.fd, _BLKRRPART)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    return error.errno == errno.EINVAL
            else:
                return True
        return False


@contextmanager
def hold(device: Device, host: Host = THIS_MACHINE, *, settle: float = SETTLE) -> Iterator[Held]:
    """`device` opened for us alone, until the block ends; it was examined and admitted before.

    Raises `DeviceRefusedError` if it is another device by now, if somebody has it, or if it became read-only,
    and `MissingToolError` if we may not open it. Programs that let go within `settle` seconds are waited for.
    """
    last = time.monotonic() + settle
    fd = _open(device, last)
    try:
        _same(device, fd, host)
        _lock(device, fd, last)
        _alone(device, host, last)
        yield Held(device, fd)
    finally:
        os.close(fd)


def _open(device: Device, last: float) -> int:
    if device.is_file:
        return _open_file(device)
    while True:
        try:
            return os.open(device.node, os.O_RDWR | os.O_EXCL | _OPEN)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= last:
                _cannot_open(device, error)
        time.sleep(_AGAIN)


def _open_file(device: Device) -> int:
    """One that was not there is made, its owner's alone: it gets a node's secrets."""
    made = os.O_CREAT | os.O_EXCL if device.place is None else 0
    try:
        return os.open(device.node, os.O_RDWR | os.O_NOFOLLOW | _OPEN | made, 0o600)
    except FileExistsError as error:
        words = "it was not there when it was examined"
        raise refused(device, [Refusal("changed", words)]) from error
    except OSError as error:
        _cannot_open(device, error)


def _cannot_open(device: Device, error: OSError) -> NoReturn:
    if error.errno in (errno.EACCES, errno.EPERM):
        raise MissingToolError(
            f"`{device.path}` may not be written to by this user",
            hint=f"run piimage with sudo: `{by_sudo()} ...`",
        ) from error
    if error.errno == errno.EBUSY:
        words = "the kernel or a program has it for itself"
        raise refused(device, [Refusal("claimed", words)]) from error
    if error.errno == errno.EROFS:
        raise refused(device, [Refusal("read-only", "it became read-only")]) from error
    words = (error.strerror or str(error)).lower()
    raise DeviceRefusedError(
        f"`{device.path}` cannot be opened any more: {words}", hint="was it taken out?"
    ) from error


def _same(device: Device, fd: int, host: Host) -> None:
    """Names are given away anew: what is open must be what was asked about, by numbers that are not."""
    status = os.fstat(fd)
    if device.is_file:
        place = device.place and (status.st_dev, status.st_ino)
        now: object = place, status.st_size
        then: object = device.place, device.size
    else:
        number = os.major(status.st_rdev), os.minor(status.st_rdev)
        sequence = device.diskseq if device.diskseq is None else _ask(fd, _BLKGETDISKSEQ, "Q")
        now = (
            number,
            sequence,
            _ask(fd, _BLKGETSIZE64, "Q"),
            read_device(device.node, host).identity,
        )
        then = device.number, device.diskseq, device.size, device.identity
    if now != then:
        raise refused(
            device, [Refusal("changed", "it is not the device any more that was examined")]
        )
    if not device.is_file and _ask(fd, _BLKROGET, "i"):
        raise refused(device, [Refusal("read-only", "it became read-only")])


def _ask(fd: int, request: int, layout: str) -> int:
    (value,) = struct.unpack(layout, fcntl.ioctl(fd, request, bytes(struct.calcsize(layout))))
    return int(value)


def _lock(device: Device, fd: int, last: float) -> None:
    """The lock on the whole disk that keeps udev from looking into it meanwhile, systemd's BLOCK_DEVICE_LOCKING."""
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= last:
                words = "another program has locked it (another `piimage flash`?)"
                raise refused(device, [Refusal("locked", words)]) from error
        else:
            return
        time.sleep(_AGAIN)


def _alone(device: Device, host: Host, last: float) -> None:
    """What an exclusive open does not see: loops on top, plain opens by others."""
    kin = guard_use.family(device, host)
    while found := in_use(kin, host):
        if time.monotonic() >= last:
            raise refused(device, found)
        time.sleep(_AGAIN)
