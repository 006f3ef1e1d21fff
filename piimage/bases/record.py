"""A base and where it came from, as it is written beside the image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.facts import Facts

_VERSION = 1

Kind = Literal["made", "imported", "baked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a base came to be: `source` is a file's name, or what it was made or baked from.

    `at` is a UTC time as in `2026-01-31T12:00:00Z`; `sha256` of the source file as it was given.
    """

    kind: Kind
    source: str
    at: str
    sha256: str | None = None

    @classmethod
    def now(cls, kind: Kind, source: str, *, sha256: str | None = None) -> Origin:
        """An origin of this moment."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(kind=kind, source=source, at=at, sha256=sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a base without opening it: `id` is the sha256 of the raw image.

    `size` is in bytes, `tools` maps names of what made or imported it to versions; `mtime_ns` shows
    later changes.
    """

    name: str
    id: str
    size: int
    mtime_ns: int
    origin: Origin
    tools: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        return {"version": _VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read `to_json` back; raises `ValueError`, `KeyError` or `TypeError` for anything else."""
        if data.get("version") != _VERSION:
            raise ValueError("a record of another version")
        known = {item.name: data[item.name] for item in fields(cls)}
        return cls(**{**known, "origin": Origin(**data["origin"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base that is present: `path` is the raw image, never to be written to.

    `id` is the image's sha256, or for a baked base the hash of what it was baked from; `lock` is then the digest of
    its layer in the lock. `trusted` when all that is in it was made by us, from signed packages.
    """

    name: str
    path: Path
    id: str
    facts: Facts
    origin: Origin
    tools: Mapping[str, str] = field(default_factory=dict)
    lock: str | None = None
    trusted: bool = False
