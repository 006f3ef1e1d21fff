"""What went wrong in a bake, from the log of its script: the package, the last words, where to read more."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from piimage.disk.atomic import full_disk
from piimage.errors import PiimageError, ToolFailedError, WriteFailedError
from piimage.report import shown

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.bases.cache import Cache

#: How dpkg(1) and rpm(8) name a package that they could not deal with; rpm with version and architecture.
_FAILED = re.compile(
    r"^dpkg: error processing (?:package (?P<package>[^ :]+)(?::\S+)?|archive \S*/(?P<archive>[^/_ ]+)_\S+)"
    r"|^(?:error|warning): %\w+\((?P<rpm>[^()\s]+)\) scriptlet failed",
    re.MULTILINE,
)
_LINES, _WIDTH = 12, 200
_KEPT = 5
#: Less than this many bytes free on the disk with the image is none.
_FULL = 1 << 20


def explained(error: PiimageError, log: Path, cache: Cache) -> PiimageError:
    """`error` with what the log says; a copy of the log is kept in the cache, beside the last few others."""
    if not isinstance(error, ToolFailedError) or not log.exists() or not log.stat().st_size:
        return error
    text = log.read_text(encoding="utf-8", errors="replace")
    kept = keep(log, cache)
    words = [line for line in text.splitlines() if line.strip()][-_LINES:]
    detail = "".join(f"\n    {line[:_WIDTH]}" for line in words)
    # Through a loop device or FUSE a full disk of this machine's can look like a broken one.
    if full_disk(text) or shutil.disk_usage(log.parent).free < _FULL:
        return WriteFailedError(
            f"the disk ran full while packages were being installed{detail}",
            hint=f"free some space, or set `PIIMAGE_CACHE` to a directory with some GiB free; the log is `{kept}`",
        )
    names = [
        match["package"] or match["archive"] or match["rpm"] for match in _FAILED.finditer(text)
    ]
    if names:
        return ToolFailedError(
            f"package {shown(names[0])} could not be installed{detail}",
            hint=f"the whole log is `{kept}`; nothing was kept of this bake",
        )
    return ToolFailedError(
        f"{error.message}{detail}", hint=f"the whole log is `{kept}`; nothing was kept of this bake"
    )


def keep(log: Path, cache: Cache) -> Path:
    """Copy a log to where it outlives the scratch directory; only the last few stay."""
    place = cache.directory("logs")
    older = sorted(place.glob("bake-*.log"), key=lambda path: path.stat().st_mtime)
    for path in older[: -_KEPT + 1]:
        path.unlink(missing_ok=True)
    numbers = [int(path.stem.rpartition("-")[2]) for path in older if path.stem[5:].isdecimal()]
    kept = place / f"bake-{max(numbers, default=0) + 1}.log"
    shutil.copyfile(log, kept)
    return kept
