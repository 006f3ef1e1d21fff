"""What the comparisons of `piimage flash` write, changed on the card or not, and whether it is there at the end."""

from __future__ import annotations

import argparse
import compileall
import os
import random
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from targets import MIB

import piimage
from piimage.bases.cache import cache_root
from piimage.flash.payload import open_payload
from piimage.flash.ranges import amount, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.flash.payload import Payload

#: Where an MBR has the disk's signature, in which these images differ from node to node.
SIGNATURE = 0x1B8


@dataclass(frozen=True)
class Subject:
    """The raw `image` as a payload; `home` is memory for what is made of it; `options` are those of the command."""

    image: Path
    payload: Payload
    home: Path
    options: argparse.Namespace

    @property
    def used(self) -> int:
        """Bytes of it that are in use."""
        return amount(self.payload.needed)

    def change(self, card: Path) -> None:
        """Other bytes in one of twenty chunks of what is in use, on the card whose backing is in `card`."""
        chunks = list(pieces(self.payload.needed, 4 * MIB))
        with (card / "backing").open("r+b") as file:
            for start, length in random.Random(1).sample(chunks, len(chunks) // 20):
                file.seek(start)
                file.write(os.urandom(length))

    def check(self, card: Path, signature: bytes | None = None) -> None:
        """Raise `AssertionError` unless all that is in use is there, under another disk signature if one is given."""
        with (card / "backing").open("rb") as found, self.image.open("rb") as image:
            for start, length in pieces(self.payload.needed, 4 * MIB):
                found.seek(start)
                image.seek(start)
                wanted = bytearray(image.read(length))
                if start == 0 and signature is not None:
                    wanted[SIGNATURE : SIGNATURE + len(signature)] = signature
                assert found.read(length) == wanted, f"the card is wrong at byte {start}"


@contextmanager
def subject(**more: tuple[float, str]) -> Iterator[Subject]:
    """What the command line names, the cached default base unless it names an image.

    `more` are further options, each with its default and what it says.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--image", type=Path, default=None)
    for name, (default, words) in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=words)
    options = parser.parse_args()
    # As pip leaves what it installs; from a checkout where no byte code may be kept, each start compiles all of it.
    compileall.compile_dir(Path(piimage.__file__).parent, quiet=1)
    image = options.image or next((cache_root() / "bases").glob("*/image.img"))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        found = Subject(image, open_payload(image), Path(home), options)
        size, used = found.payload.size / MIB, found.used / MIB
        print(f"{size:.0f} MiB, {used:.0f} MiB in use", flush=True)
        yield found
