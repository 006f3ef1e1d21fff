"""How quick is an image in frames: `piimage flash` from `img.zst`, read back, against bmaptool from compressed images.

    sudo .venv/bin/python bench/flash_frames.py [--image FILE] [--runs N]

The target is a loop device over memory, so that the tools alone are compared (package bmap-tools). The image is the
cached default base, or FILE; it is packed by a build's own code for piimage, by `zstd -3` and `xz -1` for bmaptool,
which writes what our bmap names and reads nothing back. Medians; each tool in turn, once in each run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from pathlib import Path

from targets import MIB, flash, memory, timed

from piimage.artifact import publish
from piimage.bases.cache import cache_root
from piimage.flash.payload import open_payload
from piimage.flash.ranges import amount, pieces


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--image", type=Path, default=None)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    image = options.image or next((cache_root() / "bases").glob("*/image.img"))
    payload = open_payload(image)
    print(f"{payload.size / MIB:.0f} MiB, {amount(payload.needed) / MIB:.0f} MiB in use")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        home = Path(name)
        ours = publish(image, home, "ours", fmt="img.zst")
        others = {"zst": ["zstd", "-3", "-T0"], "xz": ["xz", "-1", "-T0"]}
        for kind, tool in others.items():
            with (home / f"other.img.{kind}").open("wb") as sink:
                subprocess.run([*tool, "-q", "-c", image], stdout=sink, check=True)
        mine: list[float] = []
        theirs: dict[str, list[float]] = {kind: [] for kind in others}
        most = 0
        with memory(home / "target", payload.size) as device:
            for _ in range(options.runs):
                for kind, seconds in theirs.items():
                    packed = home / f"other.img.{kind}"
                    seconds.append(timed(["bmaptool", "copy", "--bmap", ours.bmap, packed, device]))
                run = flash(device, "--image", ours.image)
                mine.append(run.seconds)
                most = max(most, run.memory)
            with (home / "target" / "backing").open("rb") as card, image.open("rb") as raw:
                for start, length in pieces(payload.needed, 4 * MIB):
                    card.seek(start)
                    raw.seek(start)
                    assert card.read(length) == raw.read(length), f"wrong at byte {start}"
        middle = statistics.median(mine)
        print(f"piimage flash, img.zst, verified  {middle:6.2f} s   memory {most / MIB:.0f} MiB")
        for kind, seconds in theirs.items():
            other = statistics.median(seconds)
            print(
                f"bmaptool, {kind}, not verified {other:10.2f} s   {other / middle:.1f} times as long"
            )


if __name__ == "__main__":
    main()
