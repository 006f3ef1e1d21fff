"""How quick the commands are that a person waits for, with a cluster of 64 nodes.

    .venv/bin/python bench/many.py [--runs N]

`--help` and `validate` in new processes; then `build --all`, whose variants are made first and not counted: the first
run into an empty directory (64 stamps, keys and the published variants) and the second, which finds all of it there.
Medians. The base is `debian-13` of the user's own cache (`piimage base make debian-13`).
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from piimage.bases.cache import cache_root

SAMPLE = Path(__file__).resolve().parent.parent / "cluster.yaml"
NODES = 64


def write(directory: Path) -> Path:
    """The sample with more nodes, in `directory`."""
    text, count = re.subn(r"\bcount: 5\b", f"count: {NODES}", SAMPLE.read_text(encoding="utf-8"))
    text, first = re.subn(r"\bfirst: 10\.1\.10\.240\b", "first: 10.1.10.10", text)
    if not count or not first:
        sys.exit("the sample cluster.yaml has other numbers now: adapt this script")
    source = directory / "cluster.yaml"
    source.write_text(text, encoding="utf-8")
    return source


def seconds(*words: str) -> float:
    """How long one command of piimage takes, in a process of its own."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "piimage", *words]
    done = subprocess.run(argv, capture_output=True, check=False)
    taken = time.monotonic() - began
    if done.returncode != 0:
        sys.exit(
            f"piimage {' '.join(words)} failed:\n{done.stderr.decode(errors='replace')[-3000:]}"
        )
    return taken


def used(directory: Path) -> int:
    """Bytes of disk that the files below `directory` take."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in files)


def show(what: str, runs: list[float], more: str = "") -> None:
    every = " ".join(f"{run:.2f}" for run in runs)
    print(f"{what:38} {statistics.median(runs):6.2f} s   ({every}){more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each; medians are shown")
    runs = range(parser.parse_args().runs)
    with tempfile.TemporaryDirectory(dir=cache_root(), prefix="bench-") as name:
        source = str(write(Path(name)))
        show("piimage --help", [seconds("--help") for _ in runs])
        show(f"piimage validate, {NODES} nodes", [seconds("validate", source) for _ in runs])
        seconds("build", source, "--all", "-o", str(Path(name, "warm")))
        first, second = [], []
        for number in runs:
            output = Path(name, str(number))
            first.append(seconds("build", source, "--all", "-o", str(output)))
            second.append(seconds("build", source, "--all", "-o", str(output)))
        stamps = used(Path(name, "0")) - used(Path(name, "0", "variants"))
        each = (
            f", {statistics.median(first) / NODES:.2f} s and {stamps / NODES / 1024:.0f} KiB a node"
        )
        show(f"piimage build --all, {NODES} stamps", first, each)
        show("the same again", second)
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
