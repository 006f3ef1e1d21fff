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

import os

from images import subject
from targets import MIB, flash, limited, timed

from piimage.disk.bmap import write_bmap


def main() -> None:
    with subject(rate=(40.0, "MiB/s, reading and writing")) as it:
        image, rate = it.image, it.options.rate
        bound = 2 * it.used / (rate * MIB)
        bmap = it.home / "bmap"
        write_bmap(image, bmap)
        with limited(it.home, it.payload.size, rate) as device:
            rows = {"bound": bound}
            block = ["bs=4M", "oflag=direct", "conv=fsync"]
            rows["dd, not verified"] = timed(["dd", f"if={image}", f"of={device}", *block])
            written = timed(["bmaptool", "copy", "--bmap", bmap, image, device])
            rows["bmaptool, not verified"] = written
            back = timed(["bmaptool", "copy", "--bmap", bmap, device, os.devnull])
            rows["bmaptool and its read-back"] = written + back
            rows["piimage flash, verified"] = flash(device, "--image", image).seconds
            # Killed on its way, and gone on with.
            flash(device, "--image", image, until=lambda done: done > 0.63 * it.used)
            again = flash(device, "--image", image, "--resume")
            rows["piimage flash --resume, killed at 63 %"] = again.seconds
            it.change(it.home)
            update = flash(device, "--image", image, "--update")
            rows["piimage flash --update, 5 % changed"] = update.seconds
        it.check(it.home)
    for name, seconds in rows.items():
        print(f"{name:40} {seconds:7.1f} s  {seconds / bound:5.2f} of the bound")


if __name__ == "__main__":
    main()
