"""All that is in two images, as the libguestfs appliance sees it: what differs is what a build has changed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BEGIN = "piimage-begin"
#: Name, kind, mode, owner, group, target of a link.
_FIND = r"find /sysroot -xdev -printf '%P\t%y\t%m\t%U\t%G\t%l\n'"
_KINDS = {"f": "file", "d": "dir", "l": "link"}


@dataclass(frozen=True)
class Seen:
    """What is at a path; `sha256` of what a file holds. Mode and owner are empty where the file system has none."""

    kind: str
    mode: str
    uid: str
    gid: str
    target: str
    sha256: str


def trees(scratch: Path, *images: Path) -> list[dict[str, Seen]]:
    """Path -> what is there, for each image, from one start of the appliance."""
    script = [f"add-drive-ro {image}" for image in images] + ["run"]
    places = [
        (number, partition, mount)
        for number in range(len(images))
        for partition, mount in ((2, ""), (1, "/boot/firmware"))
    ]
    for number, partition, _ in places:
        script += [
            f"echo {_BEGIN}",
            f"mount-ro /dev/sd{'abc'[number]}{partition} /",
            f'debug sh "{_escaped(_FIND)}"',
            f"checksums-out sha256 / {scratch / f'sums-{number}-{partition}'}",
            "umount /",
        ]
    done = subprocess.run(
        ["guestfish"],
        input="\n".join(script) + "\n",
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "LIBGUESTFS_BACKEND": "direct",
            "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg",
        },
    )
    assert done.returncode == 0, done.stderr
    listings = done.stdout.split(f"{_BEGIN}\n")[1:]
    assert len(listings) == len(places)
    found: list[dict[str, Seen]] = [{} for _ in images]
    for (number, partition, mount), listing in zip(places, listings, strict=True):
        sums = (scratch / f"sums-{number}-{partition}").read_text()
        digests = {line[66:].removeprefix("."): line[:64] for line in sums.splitlines()}
        for line in listing.splitlines():
            if line:
                name, seen = _seen(line, digests, bare=bool(mount))
                if name:
                    found[number][f"{mount}/{name}"] = seen
    return found


def _escaped(command: str) -> str:
    return command.replace("\\", "\\\\").replace('"', '\\"')


def _seen(line: str, digests: dict[str, str], *, bare: bool) -> tuple[str, Seen]:
    name, kind, mode, uid, gid, target = line.split("\t")
    if bare:
        mode = uid = gid = ""
    return name, Seen(_KINDS.get(kind, kind), mode, uid, gid, target, digests.get(f"/{name}", ""))
