"""Sparse files: copying with holes kept, hashing without reading holes, writing zeros as holes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from typing import TYPE_CHECKING

from piimage.disk.atomic import final_name, require_space, write_errors
from piimage.errors import WriteFailedError
from piimage.progress import Progress, Quiet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.progress import Task

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_CHUNK = 8 << 20
_ZEROS = bytes(1 << 20)
#: A run of zeros this long and aligned becomes a hole: one block of every common file system.
GRANULE = 4096
_NO_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


def data_ranges(fd: int, at: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """`(offset, length)` of what an open file holds besides holes, in order; from byte `at` up to `end`."""
    size = os.fstat(fd).st_size
    end = size if end is None else min(end, size)
    while at < end:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        if start >= end:
            return
        at = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        yield start, at - start


def copy_sparse(src: Path, dst: Path, progress: Progress | None = None) -> None:
    """Make `dst` (created or emptied) a copy of `src`: shared blocks if possible, else holes kept.

    Raises `WriteFailedError` before copying when there is no room, and when the disk runs full.
    What was written until then is left to the caller, who has `dst` as a scratch name.
    """
    with (
        src.open("rb") as source,
        write_errors(dst, allocated_bytes(src)),
        (progress or Quiet()).step(f"copying {src.name}") as task,
    ):
        size = os.fstat(source.fileno()).st_size
        fd = os.open(dst, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            task.total(size)
            if not _clone(source.fileno(), fd):
                require_space(dst.parent, allocated_bytes(src))
                os.ftruncate(fd, size)
                copy_part(source.fileno(), fd, start=0, length=size, task=task)
        finally:
            os.close(fd)


def copy_part(
    source: int, target: int, *, start: int, length: int, at: int = 0, task: Task
) -> None:
    """Copy `length` bytes from byte `start` of one open file to byte `at` of another, holes left out.

    The target is new there and long enough. Raises `OSError`, and `WriteFailedError` for a source that shrinks.
    """
    for first, count in data_ranges(source, start, start + length):
        for begin in range(first, first + count, _CHUNK):
            amount = min(_CHUNK, first + count - begin)
            _copy_range(source, target, begin, begin - start + at, amount)
            task.advance(amount)


def allocated_bytes(path: Path) -> int:
    """What a file takes on the disk."""
    return path.stat().st_blocks * 512


def hash_file(path: Path, algorithm: str = "sha256", progress: Progress | None = None) -> str:
    """Hex digest over the whole content; holes count as the zeros that they read as, unread."""
    hasher = hashlib.new(algorithm)
    with (
        path.open("rb", buffering=0) as file,
        (progress or Quiet()).step(f"hashing {final_name(path)}") as task,
    ):
        size = os.fstat(file.fileno()).st_size
        task.total(size)
        at, buffer = 0, bytearray(1 << 20)
        for start, length in data_ranges(file.fileno()):
            _hash_zeros(hasher, start - at)
            file.seek(start)
            left = length
            while left:
                count = file.readinto(memoryview(buffer)[: min(len(buffer), left)])
                if not count:
                    raise WriteFailedError(f"`{path}` became shorter while it was being read")
                hasher.update(memoryview(buffer)[:count])
                left -= count
            task.advance(start + length - at)
            at = start + length
        _hash_zeros(hasher, size - at)
        task.advance(size - at)
    return hasher.hexdigest()


def write_sparse(fd: int, at: int, data: bytes | bytearray | memoryview) -> None:
    """Write `data` at byte `at` (a multiple of `GRANULE`), leaving out zeros; `fd` is new there."""
    view, run = memoryview(data), -1
    for start in range(0, len(view), GRANULE):
        # A copy, since two `bytes` are compared as memory and a view one byte at a time.
        piece = view[start : start + GRANULE].tobytes()
        if _ZEROS.startswith(piece):
            if run >= 0:
                write_all(fd, at + run, view[run:start])
                run = -1
        elif run < 0:
            run = start
    if run >= 0:
        write_all(fd, at + run, view[run:])


def write_all(fd: int, at: int, data: memoryview) -> None:
    """`os.pwrite` until everything is written."""
    while data:
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done


def _hash_zeros(hasher: hashlib._Hash, length: int) -> None:
    for _ in range(length // len(_ZEROS)):
        hasher.update(_ZEROS)
    hasher.update(_ZEROS[: length % len(_ZEROS)])


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def _copy_range(source: int, target: int, start: int, at: int, length: int) -> None:
    while length:
        try:
            done = os.copy_file_range(source, target, length, start, at)
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            data = os.pread(source, length, start)
            write_all(target, at, memoryview(data))
            done = len(data)
        if not done:
            raise WriteFailedError("the file became shorter while it was being copied")
        start, at, length = start + done, at + done, length - done
