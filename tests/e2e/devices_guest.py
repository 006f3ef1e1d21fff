"""Runs in a machine with a USB stick, two USB disks, one of them worn, and an SD slot.

What the guard makes of them, and what becomes of writes to disks that fail, as JSON lines.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.errors import PiimageError
from piimage.flash.candidates import candidates
from piimage.flash.eject import eject
from piimage.flash.guard import admit, examine
from piimage.flash.hold import hold
from piimage.flash.payload import open_payload
from piimage.flash.writer import write_card

if TYPE_CHECKING:
    from piimage.flash.events import Event
    from piimage.flash.payload import Payload
    from piimage.flash.writer import Mode

SECTORS = 65536
IMAGE = Path("/run/code/tiny.img")
#: Sectors of a card on which dm plays its faults.
CARD = 40960


def tell(what, **facts):
    print(json.dumps({"what": what, **facts}), flush=True)  # noqa: T201 -- the host listens


def names(path: Path) -> list[str]:
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


def mapped(name, *targets):
    """A device of dm, as dmsetup would make it; each of `targets` is its length in sectors, its kind and its words."""
    body, start = b"", 0
    for length, kind, words in targets:
        text = f"{words}\0".encode()
        step = 40 + len(text) + 7 & ~7
        spec = struct.pack("=QQiI16s", start, length, 0, step, kind.encode())
        body += (spec + text).ljust(step, b"\0")
        start += length
    device_mapper(3, name)
    device_mapper(9, name, body, targets=len(targets))
    device_mapper(6, name)
    (there,) = (
        found.parents[1]
        for found in Path("/sys/block").glob("dm-*/dm/name")
        if found.read_text().strip() == name.decode()
    )
    return waited_for(Path("/dev", there.name))


def waited_for(path):
    for _ in range(600):
        if path.exists():
            return path
        time.sleep(0.05)
    raise RuntimeError(f"no {path}")


def number_of(path):
    status = path.stat().st_rdev
    return f"{os.major(status)}:{os.minor(status)}"


def main():
    listed = [each.document() for each in candidates()]
    tell("listed", devices=listed)
    nodes = {device["serial"]: Path(device["path"]) for device in listed}
    stick, disk, slot = nodes["STICK1"], nodes["DISK2"], Path("/dev/mmcblk0")
    part = Path(f"{stick}1")
    tell("partition", refusals=names(part))
    new_table(slot)
    volume = mapped(b"volume", (1024, "linear", f"{number_of(part)} 0"))
    tell("volume", refusals=names(stick), itself=names(volume))
    with hold(admit(examine(disk))):
        tell("disk", held=True)
    device_mapper(4, b"volume")
    tell("volume gone", refusals=names(stick))
    faults(disk, nodes["WORN3"])
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


def faults(card, worn):
    """A write to a disk that does each of these, and another one once it does so no longer."""
    payload = open_payload(IMAGE)
    write("medium error", payload, worn)
    write("good", payload, card)
    for phase in ("write", "verify"):
        write(f"pulled in {phase}", payload, card, pull=phase)
        card = put_in_again()
        write(f"pulled in {phase}, resumed", payload, card, mode="resume")
    backing = number_of(card)
    on_mapped("alias", payload, *[(CARD // 2, "linear", f"{backing} 0")] * 2)
    whole = (CARD, "linear", f"{backing} 0")
    rest = (CARD - 5008, "linear", f"{backing} 5008")
    on_mapped("bad sectors", payload, (5000, "linear", f"{backing} 0"), (8, "error", ""), rest)
    on_mapped("bad sectors, resumed", payload, whole, mode="resume")
    # Two good seconds, in which a quick machine would be done; then two bad ones, which some try outlasts.
    on_mapped("flaky", payload, (CARD, "flakey", f"{backing} 0 2 2 1 error_writes"), after=2.05)
    on_mapped("flaky, resumed", payload, whole, mode="resume")


def put_in_again():
    """The disk that was taken out, which may have another name now."""
    for scan in Path("/sys/class/scsi_host").glob("host*/scan"):
        scan.write_text("- - -")
    for _ in range(600):
        for found in candidates():
            device = found.examined.device
            if device.serial == "DISK2":
                return device.node
        time.sleep(0.05)
    raise RuntimeError("the disk does not come back")


def on_mapped(what, payload, *targets, mode="fresh", after=0.0):
    card = mapped(b"card", *targets)
    time.sleep(after)
    write(what, payload, card, mode=mode)
    device_mapper(4, b"card")


def write(
    what: str, payload: Payload, card: Path, *, mode: Mode = "fresh", pull: str | None = None
) -> None:
    """Tell how a write ended, and what the card is then."""
    seen = []

    def notify(event: Event) -> None:
        seen.append(event.kind)
        if pull and event.kind == "phase" and event.data["phase"] == pull:
            Path("/sys/block", card.name, "device/delete").write_text("1")

    fd = os.open(card, os.O_RDWR | os.O_EXCL)
    size = os.lseek(fd, 0, os.SEEK_END)
    facts: dict[str, object] = {"size": size}
    try:
        outcome = write_card(fd, size, payload, title="node3", mode=mode, notify=notify)
        facts["rewritten"] = outcome.rewritten
    except PiimageError as error:
        facts |= {"code": int(error.exit_code), "message": error.message, "hint": error.hint}
    finally:
        os.close(fd)
    tell(what, **facts, retried="retry" in seen, **content(payload, card))


def content(payload: Payload, card: Path) -> dict[str, bool]:
    """Whether there is a partition table, and all that the image has in use; nothing of a card that is gone."""
    try:
        fd = os.open(card, os.O_RDONLY)
    except OSError:
        return {}
    try:
        table = os.pread(fd, 512, 0)[510:] == b"\x55\xaa"
        with IMAGE.open("rb") as image:
            same = all(
                os.pread(fd, length, at) == os.pread(image.fileno(), length, at)
                for at, length in payload.needed
            )
    except OSError:
        return {"table": False}
    finally:
        os.close(fd)
    return {"table": table, "whole": same}


def let_go(stick: Path, slot: Path) -> None:
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
