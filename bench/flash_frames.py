"""How quick is an image in frames: `piimage flash` from `img.zst`, read back, against bmaptool from compressed images.

    sudo .venv/bin/python bench/flash_frames.py [--image FILE] [--runs N]

The target is a loop device over memory, so that the tools alone are compared (package bmap-tools). The image is the
cached default base, or FILE; it is packed by a build's own code for piimage, by `zstd -3` and `xz -1` for bmaptool,
which writes what our bmap names and reads nothing back. Medians; each tool in turn, once in each run.
"""

from __future__ import annotations

import statistics
import subprocess

from images import subject
from targets import MIB, flash, memory, timed

from piimage.artifact import publish


def main() -> None:
    with subject(runs=(3, "how often")) as it:
        print(it.words, flush=True)
        ours = publish(it.image, it.home, "ours", fmt="img.zst")
        others = {"zst": ["zstd", "-3", "-T0"], "xz": ["xz", "-1", "-T0"]}
        for kind, tool in others.items():
            with (it.home / f"other.img.{kind}").open("wb") as sink:
                subprocess.run([*tool, "-q", "-c", it.image], stdout=sink, check=True)
        mine: list[float] = []
        theirs: dict[str, list[float]] = {kind: [] for kind in others}
        most = 0
        with memory(it.home / "target", it.payload.size) as device:
            for _ in range(it.options.runs):
                for kind, seconds in theirs.items():
                    packed = it.home / f"other.img.{kind}"
                    seconds.append(timed(["bmaptool", "copy", "--bmap", ours.bmap, packed, device]))
                run = flash(device, "--image", ours.image)
                mine.append(run.seconds)
                most = max(most, run.memory)
            it.check(it.home / "target")
        middle = statistics.median(mine)
        print(f"piimage flash, img.zst, verified  {middle:6.2f} s   memory {most / MIB:.0f} MiB")
        for kind, seconds in theirs.items():
            other = statistics.median(seconds)
            print(
                f"bmaptool, {kind}, not verified {other:10.2f} s   {other / middle:.1f} times as long"
            )


if __name__ == "__main__":
    main()
