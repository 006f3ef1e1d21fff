"""Letting go of a card: what a reader understands by the button of a disc drive."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from piimage.errors import DeviceRefusedError
from piimage.flash.device import THIS_MACHINE, read_device

if TYPE_CHECKING:
    from piimage.flash.device import Device
    from piimage.flash.host import Host

#: linux/cdrom.h; the kernel's SCSI disks take it too, and stop the medium (START STOP UNIT with LoEj).
_CDROMEJECT = 0x5309
#: scsi/scsi_ioctl.h: SCSI_IOCTL_DOORUNLOCK. The kernel locks a removable medium while it is open.
_DOORUNLOCK = 0x5381


def eject(device: Device, host: Host = THIS_MACHINE) -> bool:
    """Whether the reader let the card go; an mmc slot and many a reader cannot, and lose nothing by it.

    Everything was written and flushed before. A card that is mounted again by now, or another one, is left alone.
    """
    try:
        fd = os.open(device.node, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if read_device(device.node, host).identity != device.identity:
            return False
        with suppress(OSError):  # not all have a lock
            fcntl.ioctl(fd, _DOORUNLOCK)
        # What the device refuses is a positive number, and no error (drivers/scsi/scsi_ioctl.c).
        return fcntl.ioctl(fd, _CDROMEJECT) == 0
    except (OSError, DeviceRefusedError):
        return False
    finally:
        os.close(fd)
