"""How long does a card take: `piimage flash` against dd and bmaptool, on a card that reads faster than it writes.

    sudo .venv/bin/python bench/flash.py [--write MB_PER_SECOND] [--read MB_PER_SECOND] [--image FILE] [--runs N]

The card is memory behind nbdkit, a loop device with direct I/O that takes as long as the card would (packages nbdkit,
libnbd-bin, bmap-tools). The image is the cached default base, or FILE, its root grown until three eighths of it are in
use. All sides write the same image to the same card, one after the other: dd all of it; bmaptool what its bmap names,
here our own, from the raw image and from `xz -1`, and then its read-back of the card against the bmap; `piimage flash`
what the file systems have in use, read back, as a whole command with its start. Then a write is killed at 63 % of its
writing and gone on with by `--resume`, and the card is changed in one part of twenty and written with `--update`; after
each the card is compared with the image. Medians; each side once in each run.

The bound is what the card allows: the bytes in use written once and read once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING

from images import subject
from targets import card, flash, timed

from piimage.disk.bmap import write_bmap

if TYPE_CHECKING:
    from pathlib import Path

    from images import Subject

IN_USE = 0.375
OURS = "piimage flash, read back"


def main() -> None:
    options = {
        "write": (40.0, "MB/s"),
        "read": (90.0, "MB/s"),
        "runs": (3, "how often"),
    }
    found: dict[str, list[float]] = defaultdict(list)
    with subject(**options) as given:
        it = given.larger(IN_USE)
        print(it.words, flush=True)
        read, write = it.options.read, it.options.write
        packed = it.home / "image.xz"
        with packed.open("wb") as sink:
            subprocess.run(["xz", "-1", "-T0", "-c", it.image], stdout=sink, check=True)
        write_bmap(it.image, it.home / "bmap")
        for number in range(it.options.runs):
            home = it.home / f"card{number}"
            found["bound"].append(it.used / 1e6 * (1 / write + 1 / read))
            with card(home, it.payload.size, read=read, write=write) as device:
                for name, seconds in {
                    **others(it, device, packed),
                    **ours(it, device, home),
                }.items():
                    found[name].append(seconds)
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    for name, seconds in middle.items():
        if name.startswith("piimage"):
            words = f"{seconds / middle[OURS]:5.2f} of anew"
        else:
            words = f"{middle[OURS] / seconds:5.2f} of it is what piimage flash takes"
        print(f"{name:40} {seconds:7.1f} s  {words}")


def others(it: Subject, device: Path, packed: Path) -> dict[str, float]:
    """Seconds of dd and bmaptool."""
    copy = ["bmaptool", "copy", "--bmap", it.home / "bmap"]
    block = ["bs=4M", "oflag=direct", "conv=fsync"]
    plain = timed(["dd", f"if={it.image}", f"of={device}", *block])
    raw = timed([*copy, it.image, device])
    back = timed([*copy, device, os.devnull])
    return {
        "dd, not read back": plain,
        "bmaptool, not read back": raw,
        "bmaptool and its read-back": raw + back,
        "bmaptool from xz, not read back": timed([*copy, packed, device]),
    }


def ours(it: Subject, device: Path, home: Path) -> dict[str, float]:
    """Seconds of `piimage flash`: anew, after a kill, after a small change of the card that is kept in `home`."""
    fresh = flash(device, "--image", it.image)
    it.check(home)
    flash(device, "--image", it.image, until=lambda done: done > 0.63 * it.used)
    resumed = flash(device, "--image", it.image, "--resume")
    it.check(home)
    it.change(home)
    update = flash(device, "--image", it.image, "--update")
    it.check(home)
    return {
        OURS: fresh.seconds,
        "piimage flash --resume, killed at 63 %": resumed.seconds,
        "piimage flash --update, 5 % changed": update.seconds,
    }


if __name__ == "__main__":
    main()
