"""Delta: what a tree must hold, as plain data.

A `Delta` maps absolute guest paths to entries. It is the whole interface between the pure middle
(components, plan), the shell (apply) and proof (verify): nothing reaches an image that is not in one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from piimage.errors import ExitCode, PiimageError
from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Top-level names that are symbolic links into /usr on every merged-/usr system. A tar member
#: `lib/...` replaces the link by a directory and the image no longer boots (Warewulf's overlay docs,
#: systemd's "merged-usr"), so paths are written canonically.
MERGED_USR = ("bin", "sbin", "lib", "lib64")


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: `content` bytes, `mode` permission bits, numeric owner, SELinux `label` or None.

    `mtime` is in seconds since the epoch; None leaves it to whoever applies the delta.
    """

    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    label: str | None = None
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    r"""A regular file of fixed `size` bytes whose content is stamped per node, padded with `\\n`.

    The image phase writes padding only; a stamp overwrites the sectors later, so `size` is a
    multiple of 4096 and mode and owner are settled here.
    """

    size: int
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory with these permission bits and owner; made if absent, else changed to match."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link holding `target` verbatim."""

    target: str
    uid: int = 0
    gid: int = 0
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing may be at this path; a directory goes with all that is in it."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree now at `source` moves here, and every inode of the file system changes owner by the maps.

    `uid_map` and `gid_map` map old to new numbers; inodes outside `source` that carry an old number are
    re-owned too (mail spools, crontabs), so that no file is left with it. Applied before all other entries.
    """

    source: str
    uid_map: tuple[tuple[int, int], ...] = ()
    gid_map: tuple[tuple[int, int], ...] = ()


Entry = File | Slot | Directory | Symlink | Absent | Tree


class PathError(PiimageError, ValueError):
    """A path that no delta can hold; the message has it."""


class ClashError(PiimageError):
    """Two components claim one path; the message names both."""

    exit_code = ExitCode.BAD_CONFIG


def check_path(path: str) -> str:
    """Return `path` if it is absolute, normal and canonical on merged /usr, else raise `PathError`."""
    parts = path.split("/")
    if not path.startswith("/") or path == "/" or any(p in ("", ".", "..") for p in parts[1:]):
        raise PathError(f"{shown(path)} is not a normal absolute path")
    if "\0" in path or "\n" in path:
        raise PathError(f"the path {shown(path)} holds a NUL or a newline")
    if any("\ud800" <= char <= "\udfff" for char in path):
        raise PathError(f"{shown(path)} is not UTF-8, in which names are handed to the appliance")
    if parts[1] in MERGED_USR:
        raise PathError(f"`{path}` must be written as `/usr{path}`")
    return path


@dataclass(frozen=True, slots=True)
class Delta:
    """Path -> entry, with the name of the component that claims each path in `owners`."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, owner: str, entries: Mapping[str, Entry]) -> Delta:
        """A delta with all `entries` claimed by `owner`; raises `PathError` for a path not canonical."""
        for path in entries:
            check_path(path)
        return cls(dict(entries), dict.fromkeys(entries, owner))

    def merge(self, other: Delta, *, replacing: frozenset[str] = frozenset()) -> Delta:
        """Both deltas in one.

        Two equal claims are one claim. Two different ones raise `ClashError` unless `other` is allowed
        to replace that path.
        """
        entries, owners = dict(self.entries), dict(self.owners)
        for path, entry in other.entries.items():
            mine = entries.get(path)
            if mine is not None and mine != entry and path not in replacing:
                raise ClashError(
                    f"`{path}` is claimed by `{owners[path]}` and by `{other.owners[path]}`",
                    hint="an overlay may say `replaces:` for a path that it takes over",
                )
            entries[path], owners[path] = entry, other.owners[path]
        return Delta(entries, owners)

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """Entries in path order, parents before children."""
        return iter(sorted(self.entries.items(), key=lambda item: item[0].split("/")))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def slots(self) -> dict[str, Slot]:
        """The paths that a stamp will fill."""
        return {path: entry for path, entry in self if isinstance(entry, Slot)}

    def digest(self) -> str:
        """SHA-256 (hex) over every path and entry; the cache key of the image phase."""
        hasher = hashlib.sha256()
        for path, entry in self:
            record = asdict(entry)
            if isinstance(entry, File):
                record["content"] = hashlib.sha256(entry.content).hexdigest()
            line = json.dumps([path, type(entry).__name__, record], sort_keys=True)
            hasher.update(line.encode() + b"\n")
        return hasher.hexdigest()
