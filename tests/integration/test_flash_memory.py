"""What memory `piimage flash` takes: no more than 128 MiB, and 32 MiB for each card, however large the image is."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tiny_card import MIB, ROOT, make_build, make_tiny

from piimage import artifact

#: Several times what is kept of it at a time.
DATA = 72 * MIB
SIZE = ROOT + 88 * MIB


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cluster of four whose variant is an image in frames; `raw.img` is that image, `stream.zst` one stream of it."""
    home = tmp_path_factory.mktemp("large")
    raw = make_tiny(home / "raw.img", root_size=SIZE - ROOT, data=DATA)
    framed = artifact.publish(raw, home, "frames", fmt="img.zst").image
    make_build(home, raw, {f"node{n}": "b" for n in range(4)}, published=framed, count=4)
    stream = home / "stream.zst"
    subprocess.run(["zstd", "-q", "-1", raw, "-o", stream], check=True)
    return home


def peak(home, cards, *arguments):
    """What `piimage flash` takes at most, in MiB, to write these files."""
    for card in cards:
        card.unlink(missing_ok=True)
        card.touch()
    argv = [sys.executable, "-m", "piimage", "flash", *map(str, arguments), "--quiet"]
    found = 0
    with (home / "said").open("w+") as said, subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=said, stderr=said
    ) as child:  # fmt: skip
        child.stdin.write(b"y\n")
        child.stdin.flush()
        while child.poll() is None:
            # `ru_maxrss` of a child that has ended would count the memory of its parent, these tests, as well.
            with suppress(OSError):
                for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        found = int(line.split()[1]) >> 10
            time.sleep(0.01)
    assert child.returncode == 0, (home / "said").read_text()
    assert all(card.stat().st_size == SIZE for card in cards)
    return found


@pytest.mark.parametrize("source", ["raw.img", "frames.img.zst", "stream.zst"])
def test_one_card(home, tmp_path, source):
    card = tmp_path / "card"

    assert peak(home, [card], card, "--image", home / source) <= 128 + 32


def test_four_cards(home, tmp_path):
    cards = [tmp_path / f"card{n}" for n in range(4)]
    nodes = [word for n, card in enumerate(cards) for word in ("--node", f"{n}={card}")]

    assert peak(home, cards, *nodes, "--cluster", home / "cluster.yaml") <= 128 + 4 * 32
