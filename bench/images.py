"""What the comparisons of `piimage flash` write, changed on the card or not, and whether it is there at the end."""

from __future__ import annotations

import argparse
import compileall
import os
import random
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from targets import MIB, loop

import piimage
from piimage.bases.cache import cache_root
from piimage.disk.sparse import copy_sparse
from piimage.disk.table import grow_last_partition
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

    @property
    def words(self) -> str:
        """How large it is, to be printed."""
        return f"{self.payload.size / MIB:.0f} MiB, {self.used / MIB:.0f} MiB in use"

    def larger(self, part: float) -> Subject:
        """The same image, its root grown until only so large a `part` of it is in use; itself if it is so already."""
        size = round(self.used / part) // MIB * MIB
        if size <= self.payload.size:
            return self
        image = self.home / "larger.img"
        copy_sparse(self.image, image)
        root = max(grow_last_partition(image, size).partitions, key=lambda p: p.start)
        where = ["--offset", str(root.start), "--sizelimit", str(root.size)]
        with loop(image, *where) as device:
            subprocess.run(["resize2fs", "-f", device], check=True, capture_output=True)
        return replace(self, image=image, payload=open_payload(image))

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
        yield Subject(image, open_payload(image), Path(home), options)
