"""Files that are either there in full or not at all: partial name, fsync, rename, fsync."""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from piimage.errors import WriteFailedError
from piimage.progress import human

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PARTIAL = re.compile(r"\.(?P<name>.+)\.partial-(?P<pid>[0-9]+)")
#: What full disks, quotas and file-size limits answer.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Kept free for names, directories and the manifest.
_MARGIN = 16 << 20
#: Less than this is not what is lacking on a full disk.
_WORTH_SAYING = 1 << 20
_ROOM = "free some space"


@contextmanager
def replacing(path: Path, *, mode: int = 0o644, needed: int = 0) -> Iterator[Path]:
    """Yield an empty file beside `path` to fill; leaving the block makes it `path`.

    The file has permission bits `mode` from its first byte on. It is fsynced, renamed over `path`
    and the directory fsynced; after an exception it is gone and `path` is as before. `OSError`
    becomes `WriteFailedError`, which names `needed` bytes when the disk is full.
    """
    partial = partial_name(path)
    with write_errors(path, needed):
        try:
            create(partial, mode)
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Make `path` hold `data`, all or nothing."""
    with replacing(path, mode=mode, needed=len(data)) as partial:
        partial.write_bytes(data)


def clean_partials(directory: Path) -> list[Path]:
    """Remove what dead processes left half-written in `directory`, and say what it was."""
    removed = []
    for path in sorted(directory.glob(".*.partial-*")):
        match = _PARTIAL.fullmatch(path.name)
        if match and not _alive(int(match["pid"])):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def require_space(directory: Path, needed: int, *, hint: str = _ROOM) -> None:
    """Raise `WriteFailedError` unless `directory` has room for `needed` bytes and a little more."""
    free = shutil.disk_usage(directory).free
    if free < needed + _MARGIN:
        raise WriteFailedError(
            f"`{directory}` has {human(free)} free, {human(needed + _MARGIN)} are needed",
            hint=hint,
        )


@contextmanager
def write_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn an `OSError` into `WriteFailedError` that names `path` and, on a full disk, `needed`.

    A partial file is named as what it was to become.
    """
    try:
        yield
    except OSError as error:
        path = path.with_name(final_name(path))
        words = (error.strerror or str(error)).lower()
        if error.errno in FULL and needed >= _WORTH_SAYING:
            words += f" ({human(needed)} are needed)"
        raise WriteFailedError(
            f"cannot write `{path}`: {words}",
            hint=_ROOM if error.errno in FULL else None,
        ) from error


def full_disk(words: str) -> bool:
    """Whether the last words of a tool speak of a full disk, which tools say in no other way."""
    return any(os.strerror(code).lower() in words.lower() for code in FULL)


def partial_name(path: Path) -> Path:
    """The name beside `path` under which this process writes it."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


def final_name(path: Path) -> str:
    """The name that `path` has, or gets once it is whole."""
    match = _PARTIAL.fullmatch(path.name)
    return match["name"] if match else path.name


def create(path: Path, mode: int) -> None:
    """Make an empty file with these permission bits, whatever the umask; no link is followed."""
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """Fsync a file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
