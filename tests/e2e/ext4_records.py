"""Everything that an ext4 file system says of each of its names, as `debugfs` reads it: to compare images with."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from piimage.disk import ext4

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: What says when and how it was written besides what it is for, and so differs from bake to bake. What it is.
OF_THE_MOMENT = {
    "/var/cache/ldconfig/aux-cache": "ldconfig's notes of inode numbers and times",
}
_ENTRY = re.compile(r"/(\d+)/(\d{6})/\d+/\d+/(.*)/\d*/")
_SOME = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One name: `mtime` in seconds, `digest` of a file's content or a link's target, `names` all hard links."""

    kind: str
    mode: str
    owner: tuple[int, int]
    size: int | None
    mtime: int
    xattrs: tuple[str, ...]
    names: tuple[str, ...]
    digest: str


def records(image: Path, offset: int) -> dict[str, Record]:
    """All names of the file system at byte `offset` of `image`."""
    inodes = _tree(image, offset)
    names: dict[int, list[str]] = {}
    for path, inode in inodes.items():
        names.setdefault(inode, []).append(path)
    said = dict(zip(names, _ask(image, offset, [f"stat <{n}>" for n in names]), strict=True))
    listed = ext4.list_tree(image, offset, ["/"])
    assert listed.keys() == inodes.keys()
    paths = [path for path, fact in listed.items() if fact.kind == "file"]
    digests = {path: str(fact.target) for path, fact in listed.items()}
    for start in range(0, len(paths), _SOME):
        found = ext4.read_files(image, offset, paths[start : start + _SOME], limit=1 << 30)
        digests |= {path: hashlib.sha256(data).hexdigest() for path, data in found.items()}
    return {
        path: _record(said[inode], tuple(sorted(names[inode])), digests[path])
        for path, inode in inodes.items()
    }


def differences(
    some: Mapping[str, Record], others: Mapping[str, Record], began: float
) -> dict[str, tuple[str, ...]]:
    """What differs, by name; two times after `began`, so of things that both wrote themselves, are as good as equal."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(some.keys() | others.keys()):
        one, other = some.get(path), others.get(path)
        if one is None or other is None:
            found[path] = ("only in one",)
            continue
        names = [f.name for f in fields(Record) if getattr(one, f.name) != getattr(other, f.name)]
        if "mtime" in names and min(one.mtime, other.mtime) >= int(began):
            names.remove("mtime")
        if names and path not in OF_THE_MOMENT:
            found[path] = tuple(names)
    return found


def _record(said: str, names: tuple[str, ...], digest: str) -> Record:
    kind = _find(r"Type: (\w+(?: \w+)?)\s", said)
    links = int(_find(r"Links: (\d+)", said))
    assert kind == "directory" or links == len(names), names
    _, _, xattrs = said.partition("Extended attributes:\n")
    return Record(
        kind=kind,
        mode=_find(r"Mode:\s+(\d+)", said),
        owner=(int(_find(r"User:\s+(\d+)", said)), int(_find(r"Group:\s+(\d+)", said))),
        # A directory's is how its names happened to be laid out.
        size=None if kind == "directory" else int(_find(r"Size: (\d+)\n", said)),
        mtime=int(_find(r"mtime: 0x([0-9a-f]+)", said), 16),
        xattrs=tuple(sorted(re.findall(r"^  (\S+ \(\d+\).*)$", xattrs, re.MULTILINE))),
        names=names,
        digest=digest,
    )


def _tree(image: Path, offset: int) -> dict[str, int]:
    """Inode numbers by path, one question for each level."""
    found = {"/": 2}
    level = ["/"]
    while level:
        answers = _ask(image, offset, [f"ls -p <{found[path]}>" for path in level])
        below = []
        for path, answer in zip(level, answers, strict=True):
            for number, mode, name in _ENTRY.findall(answer):
                if name in ("", ".", ".."):
                    continue
                full = f"{path.rstrip('/')}/{name}"
                found[full] = int(number)
                if mode.startswith("04"):
                    below.append(full)
        level = below
    return found


def _ask(image: Path, offset: int, commands: Iterable[str]) -> list[str]:
    """The answer to each command."""
    script = "".join(f"{command}\n" for command in commands)
    done = subprocess.run(
        ["debugfs", "-f", "/dev/stdin", f"{image}?offset={offset}"],
        input=script.encode(), capture_output=True, check=True,
    )  # fmt: skip
    text = done.stdout.decode(errors="surrogateescape")
    return re.split(r"^debugfs: (?:stat|ls) .*\n", text, flags=re.MULTILINE)[1:]


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, text[:400]
    return match[1]
