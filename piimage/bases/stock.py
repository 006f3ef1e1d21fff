"""What the cache holds, how much room each thing takes and when it was last used; and taking away what nobody uses."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from piimage.bases.cache import Cache

#: Directory of the cache -> what one thing in it is.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "bases": "base",
        "baked": "baked base",
        "variants": "variant",
        "packages": "package",
        "kernels": "kernel",
        "native": "native tools",
        "radio-kits": "radio kit",
        "downloads": "download",
        "logs": "log",
    }
)
#: What comes again by itself, for the price of a download: small, and the next bake wants it.
_TOOLS = frozenset({"kernel", "native tools", "radio kit"})
#: What only the user can bring back, by a command.
_KEPT = frozenset({"base"})
_DAY = 86400.0
_BLOCK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing at `path`: `size` in bytes on the disk, `used` in seconds since the epoch."""

    kind: str
    name: str
    path: Path
    size: int
    used: float

    def unused_for(self, days: float) -> bool:
        """Whether the last use is at least so long ago."""
        return time.time() - self.used >= days * _DAY


def items(cache: Cache) -> tuple[Item, ...]:
    """All that is there, the largest first; nothing is made."""
    found = [
        _item(kind, path)
        for directory, kind in KINDS.items()
        for path in _children(cache.root / directory)
    ]
    return tuple(sorted(found, key=lambda item: (-item.size, item.kind, item.name)))


def prunable(found: tuple[Item, ...], *, days: float, tools: bool = False) -> tuple[Item, ...]:
    """Those that nobody used for `days`: never bases, and kernels and tools of bakes only with `tools`."""
    kept = _KEPT if tools else _KEPT | _TOOLS
    return tuple(item for item in found if item.kind not in kept and item.unused_for(days))


def prune(cache: Cache, *, days: float, tools: bool = False) -> tuple[Item, ...]:
    """Take away what `prunable` names, once no build uses the cache; gives what is gone.

    Each leaves its place by a rename, so that an interruption leaves nothing half there.
    """
    gone = []
    with cache.idle(), cache.scratch() as scratch:
        for number, item in enumerate(prunable(items(cache), days=days, tools=tools)):
            with suppress(FileNotFoundError):
                item.path.rename(scratch / str(number))
                gone.append(item)
    return tuple(gone)


def _children(directory: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from sorted(directory.iterdir())


def _item(kind: str, path: Path) -> Item:
    sizes = [_allocated(each) for each in (path, *path.rglob("*"))]
    used = 0.0
    with suppress(FileNotFoundError):
        used = path.stat().st_mtime
    return Item(kind=kind, name=path.name, path=path, size=sum(sizes), used=used)


def _allocated(path: Path) -> int:
    try:
        return path.lstat().st_blocks * _BLOCK
    except FileNotFoundError:  # another process was quicker
        return 0
