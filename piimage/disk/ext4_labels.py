"""SELinux labels written to inodes of an ext4, without a mount."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.errors import ImageError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: debugfs goes on after a command that failed and exits 0: what it says tells.
_FAILED = re.compile(r"^ea_set: .*$", re.MULTILINE)


def write(image: Path, start: int, labels: Mapping[int, str]) -> None:
    """Give each inode of the ext4 file system at byte `start` its label; raises `ImageError` if that fails."""
    # by number: no name of the image's is ever part of a command
    script = "".join(
        f"ea_set <{n}> security.selinux {text}\n" for n, text in sorted(labels.items())
    )
    said = run(["debugfs", "-w", "-f", "-", f"{image}?offset={start}"], stdin=script.encode())
    failed = _FAILED.search(said.stderr.decode(errors="replace"))
    if failed:
        raise ImageError(f"cannot label files of `{image.name}`: {failed[0][:200]}")
