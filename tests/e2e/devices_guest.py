"""Runs in a machine with a USB stick, a USB disk and an SD slot: what the guard makes of them, as JSON lines."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
from pathlib import Path

from piimage.flash.candidates import candidates
from piimage.flash.eject import eject
from piimage.flash.guard import admit, examine
from piimage.flash.hold import hold

SECTORS = 65536


def tell(what, **facts):
    print(json.dumps({"what": what, **facts}), flush=True)  # noqa: T201 -- the host listens


def names(path):
    return [refusal.name for refusal in examine(path, settle=0.5).refusals]


def device_mapper(command, name, body=b"", *, flags=0, targets=0):
    """One ioctl of dm-ioctl(4): `struct dm_ioctl` of version 4, and what follows it."""
    size = 312
    head = struct.pack(
        "=3I7IQ128s129s7x",
        *(4, 0, 0), size + len(body), size, targets, 0, flags, 0, 0, 0, name, b"",
    )  # fmt: skip
    with Path("/dev/mapper/control").open("r+b", buffering=0) as control:
        number = 0xC000FD00 | size << 16 | command
        fcntl.ioctl(control, number, bytearray(head[:size].ljust(size, b"\0") + body))


def linear(name, part):
    """A volume `name` that lies on a device, as LVM would make it."""
    status = part.stat().st_rdev
    words = f"{os.major(status)}:{os.minor(status)} 0\0".encode()
    spec = struct.pack("=QQiI16s", 0, 1024, 0, 40 + len(words) + 7 & ~7, b"linear")
    device_mapper(3, name)
    device_mapper(9, name, (spec + words).ljust(80, b"\0"), targets=1)
    device_mapper(6, name)


def main():
    listed = [each.document() for each in candidates()]
    tell("listed", devices=listed)
    nodes = {device["serial"]: Path(device["node"]) for device in listed}
    stick, disk, slot = nodes["STICK1"], nodes["DISK2"], Path("/dev/mmcblk0")
    part = Path(f"{stick}1")
    tell("partition", refusals=names(part))
    new_table(slot)
    linear(b"volume", part)
    tell("volume", refusals=names(stick), itself=names(Path("/dev/dm-0")))
    with hold(admit(examine(disk))):
        tell("disk", held=True)
    device_mapper(4, b"volume")
    tell("volume gone", refusals=names(stick))
    let_go(stick, slot)
    tell("end")


def new_table(slot):
    """Write a partition table as a flash does, and have the kernel read it."""
    device = admit(examine(slot, image_size=SECTORS * 512))
    entry = b"\0\xfe\xff\xff\x83\xfe\xff\xff" + struct.pack("<II", 2048, 8192)
    with hold(device) as ours:
        os.pwrite(ours.fd, bytes(446) + entry.ljust(64, b"\0") + b"\x55\xaa", 0)
        os.fsync(ours.fd)
        reread = ours.reread_table()
        tell("table", reread=reread, seen=Path("/sys/block/mmcblk0/mmcblk0p1").exists())
    tell("identity", same=examine(slot).device.identity == device.identity)


def let_go(stick, slot):
    """What is left of a card after `eject`."""
    done = eject(admit(examine(stick)))
    time.sleep(1)
    try:
        os.close(os.open(stick, os.O_RDONLY))
        still = True
    except OSError:
        still = False
    slot_too = eject(examine(slot).device)
    tell("eject", done=done, still=still, refusals=names(stick), slot=slot_too)


main()
