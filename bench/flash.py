"""How long does a card take: `piimage flash` against dd and bmaptool, on a target with a card's rate.

    sudo .venv/bin/python bench/flash.py [--rate MIB_PER_SECOND] [--image FILE]

The target is memory behind nbdkit's rate filter, which limits reading and writing each to RATE, as a loop device with
direct I/O (packages nbdkit, libnbd-bin, bmap-tools). The image is the cached default base, or FILE. All sides write the
same image to the same target, one after the other: dd all of it; bmaptool what its bmap names, here our own, and then
its read-back of the target against the bmap; `piimage flash` what the file systems have in use, read back, as a whole
command with its start. Then a write is killed at 63 % of its writing and gone on with by `--resume`, and the card is
changed in one part of twenty and written with `--update`. At the end the target is compared with the image.

The bound is what the target allows: the mapped bytes written once and read once.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from pathlib import Path

from targets import MIB, flash, limited, timed

from piimage.bases.cache import cache_root
from piimage.disk.bmap import write_bmap
from piimage.flash.payload import Payload, open_payload
from piimage.flash.ranges import amount, pieces


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=40.0, help="MiB/s, reading and writing")
    parser.add_argument("--image", type=Path, default=None)
    options = parser.parse_args()
    image = options.image or next((cache_root() / "bases").glob("*/image.img"))
    payload = open_payload(image)
    mapped = amount(payload.needed)
    bound = 2 * mapped / (options.rate * MIB)
    print(f"{payload.size / MIB:.0f} MiB, {mapped / MIB:.0f} MiB mapped, {options.rate:g} MiB/s")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        bmap = Path(home, "bmap")
        write_bmap(image, bmap)
        with limited(Path(home), payload.size, options.rate) as device:
            rows = {"bound": bound}
            block = ["bs=4M", "oflag=direct", "conv=fsync"]
            rows["dd, not verified"] = timed(["dd", f"if={image}", f"of={device}", *block])
            written = timed(["bmaptool", "copy", "--bmap", bmap, image, device])
            rows["bmaptool, not verified"] = written
            back = timed(["bmaptool", "copy", "--bmap", bmap, device, os.devnull])
            rows["bmaptool and its read-back"] = written + back
            rows["piimage flash, verified"] = flash(device, "--image", image).seconds
            rows["piimage flash --resume, killed at 63 %"] = resumed(device, image, mapped)
            change(Path(home, "backing"), payload)
            rows["piimage flash --update, 5 % changed"] = flash(
                device, "--image", image, "--update"
            ).seconds
        check(Path(home, "backing"), payload)
    for name, seconds in rows.items():
        print(f"{name:40} {seconds:7.1f} s  {seconds / bound:5.2f} of the bound")


def resumed(device: Path, image: Path, mapped: int) -> float:
    """Seconds of the second command; the first one is killed on its way."""
    flash(device, "--image", image, until=lambda done: done > 0.63 * mapped)
    return flash(device, "--image", image, "--resume").seconds


def change(backing: Path, payload: Payload) -> None:
    """Other bytes in one of twenty chunks of what is mapped."""
    chunks = list(pieces(payload.needed, 4 * MIB))
    with backing.open("r+b") as file:
        for start, length in random.Random(1).sample(chunks, len(chunks) // 20):
            file.seek(start)
            file.write(os.urandom(length))


def check(backing: Path, payload: Payload) -> None:
    with backing.open("rb") as card, payload.image.open("rb") as image:
        for start, length in pieces(payload.needed, 4 * MIB):
            card.seek(start)
            image.seek(start)
            assert card.read(length) == image.read(length), f"the card is wrong at byte {start}"


if __name__ == "__main__":
    main()
