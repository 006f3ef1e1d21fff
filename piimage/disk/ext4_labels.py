"""SELinux labels given to inodes that have none, without a mount: what was installed where no SELinux runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.disk.ext4 import open_ext4
from piimage.errors import ImageError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NAME = "security.selinux"
#: user:role:type, and with MLS a range.
_LABEL = re.compile(r"[\w.]+(:[\w.,-]+){2,4}", re.ASCII)
#: debugfs goes on after a command that failed and exits 0: what it says tells.
_FAILED = re.compile(r"^ea_set: .*$", re.MULTILINE)


def fill_in(image: Path, start: int, label: Callable[[str, str], str | None]) -> int:
    """Label what has no label in the ext4 file system at byte `start`; returns how many inodes got one.

    `label` takes a path and a kind as in `FileFact`. An inode with several names is labelled for the first. Raises
    `ImageError` for a file system that cannot be changed.
    """
    wanted: dict[int, str] = {}
    with open_ext4(image, start) as ext4:
        for path, inode in ext4.walk():
            if inode.number in wanted or _NAME in ext4.attributes(inode):
                continue
            found = label(path, inode.kind)
            if found is not None and _LABEL.fullmatch(found):
                wanted[inode.number] = found
    if wanted:
        # by number: no name of the image's is ever part of a command
        script = "".join(f"ea_set <{n}> {_NAME} {text}\n" for n, text in sorted(wanted.items()))
        said = run(["debugfs", "-w", "-f", "-", f"{image}?offset={start}"], stdin=script.encode())
        failed = _FAILED.search(said.stderr.decode(errors="replace"))
        if failed:
            raise ImageError(f"cannot label files of `{image.name}`: {failed[0][:200]}")
    return len(wanted)
