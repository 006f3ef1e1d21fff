"""An exported state: an uncompressed tar file of small files, one or two levels deep. Reading trusts nothing."""

from __future__ import annotations

import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from piimage.errors import StateError
from piimage.report import shown

if TYPE_CHECKING:
    from pathlib import Path

#: More than this is none of ours.
_MAX_FILE, _MAX_FILES = 1 << 20, 1 << 14


def write(directory: Path, target: Path) -> None:
    """Write what is in `directory` to the tar file `target`, without what a killed build left half-written."""
    with tarfile.open(target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(directory.rglob("*")):
            if not path.name.startswith("."):
                tar.add(path, arcname=str(path.relative_to(directory)), recursive=False)


def read(source: Path) -> dict[str, bytes]:
    """Name -> content; raises `StateError` for a file that is absent, no tar file, or holds anything else."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(source, mode="r:") as tar:
            for member in tar:
                if member.isdir() and _name(member.name):
                    continue
                content = tar.extractfile(member) if _acceptable(member) else None
                if content is None or len(contents) == _MAX_FILES:
                    raise StateError(
                        f"`{source}` is not an exported state: it holds {shown(member.name)}"
                    )
                contents[_name(member.name)] = content.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StateError(f"`{source}` cannot be read: {reason}") from error
    except (tarfile.TarError, ValueError) as error:
        raise StateError(f"`{source}` is not an exported state: it is not a tar file") from error
    return contents


def _acceptable(member: tarfile.TarInfo) -> bool:
    return (
        member.isreg()
        and not member.issparse()
        and member.size <= _MAX_FILE
        and bool(_name(member.name))
    )


def _name(name: str) -> str:
    """The name as we write it, or `""` for one that leads elsewhere or is hidden."""
    parts = PurePosixPath(name).parts
    bad = len(parts) > 2 or any(p.startswith((".", "/")) or "\0" in p for p in parts)  # noqa: PLR2004 -- see above
    return "" if bad else "/".join(parts)
