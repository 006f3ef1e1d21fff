"""Images read back with tools that had no part in writing them: debugfs, e2fsck, mtools."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phony import BOOT_START, ROOT_START

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TYPES = {"regular": "file", "directory": "dir", "symlink": "link"}


@dataclass(frozen=True)
class Stat:
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    mtime: int
    target: str | None = None


def debugfs(image: Path, *commands: str) -> str:
    script = "\n".join(commands).encode(errors="surrogateescape")
    said = tool("debugfs", "-f", "-", f"{image}?offset={ROOT_START}", stdin=script)
    return said.decode(errors="surrogateescape")


def stats(image: Path, paths: Iterable[str]) -> dict[str, Stat | None]:
    """What debugfs says of each path; None for what is not there."""
    paths = list(paths)
    commands = [f'stat "{path.replace(chr(34), chr(34) * 2)}"' for path in paths]
    pieces = re.split(r"^debugfs: stat .*\n", debugfs(image, *commands), flags=re.MULTILINE)[1:]
    assert len(pieces) == len(paths)
    return {path: _stat(piece) for path, piece in zip(paths, pieces, strict=True)}


def _stat(text: str) -> Stat | None:
    head = re.search(r"Type: (\w+) +Mode: +(\d+)", text)
    if head is None:
        return None
    uid, gid, size = re.search(r"User: +(\d+) +Group: +(\d+).*?Size: (\d+)", text).groups()
    target = re.search(r'Fast link dest: "(.*)"', text)
    return Stat(
        kind=_TYPES.get(head[1], head[1]),
        mode=int(head[2], 8),
        uid=int(uid),
        gid=int(gid),
        size=int(size),
        links=int(re.search(r"Links: (\d+)", text)[1]),
        mtime=int(re.search(r"mtime: 0x([0-9a-f]+)", text)[1], 16),
        target=target[1] if target else None,
    )


def content(image: Path, path: str, scratch: Path) -> bytes:
    """A file's bytes, dumped by debugfs."""
    out = scratch / "dumped"
    out.unlink(missing_ok=True)
    debugfs(image, f'dump "{path.replace(chr(34), chr(34) * 2)}" {out}')
    return out.read_bytes()


def fat_content(image: Path, name: str) -> bytes:
    return tool("mtype", "-i", f"{image}@@{BOOT_START}", f"::/{name}")


def fat_names(image: Path) -> set[str]:
    listed = tool("mdir", "-b", "-/", "-i", f"{image}@@{BOOT_START}", "::/").decode()
    return {line.removeprefix("::/") for line in listed.splitlines()}


def check(image: Path, scratch: Path) -> None:
    """Both file systems are clean."""
    tool("e2fsck", "-fn", f"{image}?offset={ROOT_START}")
    volume = scratch / "fat"
    with image.open("rb") as source, volume.open("wb") as target:
        source.seek(BOOT_START)
        target.write(source.read(ROOT_START - BOOT_START))
    tool("fsck.fat", "-n", volume)
    volume.unlink()


def tool(*argv: str | Path, stdin: bytes = b"") -> bytes:
    """Run an independent tool and return what it prints."""
    env = {
        **os.environ,
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "MTOOLS_SKIP_CHECK": "1",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [str(word) for word in argv], input=stdin, capture_output=True, env=env, check=False
    )
    assert done.returncode == 0, (argv, done.stderr.decode(errors="replace"), done.stdout[-2000:])
    return done.stdout
