"""A read-only view of part of an image; every read is bounded, a hostile offset is an error."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from piimage.disk.slots import Patch


class Window:
    """Bytes `start` to the end of an open image; offsets given to `read` count from `start`.

    `patches` (offsets in the image) are seen as if they were written.
    """

    def __init__(self, fd: int, start: int, name: str, patches: Sequence[Patch] = ()) -> None:
        self._fd = fd
        self.start = start
        self.name = name
        self._patches = patches
        self.size = max(0, os.lseek(fd, 0, os.SEEK_END) - start)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; raises `ImageError` when they are not all inside the image."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ImageError(
                f"`{self.name}` is truncated or damaged: it refers to byte "
                f"{self.start + offset + length} and has {self.start + self.size}"
            )
        place = self.start + offset
        parts = []
        while length:
            part = os.pread(self._fd, length, self.start + offset)
            if not part:
                raise ImageError(f"`{self.name}` became shorter while it was being read")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return self._patched(place, parts[0] if len(parts) == 1 else b"".join(parts))

    def _patched(self, place: int, data: bytes) -> bytes:
        """`data` as it lies at byte `place` of the image, under the patches that reach into it."""
        end = place + len(data)
        hits = [p for p in self._patches if p.offset < end and place < p.offset + len(p.data)]
        if not hits:
            return data
        changed = bytearray(data)
        for patch in hits:
            first, last = max(place, patch.offset), min(end, patch.offset + len(patch.data))
            piece = patch.data[first - patch.offset : last - patch.offset]
            changed[first - place : last - place] = piece
        return bytes(changed)

    def unpack(self, layout: str, offset: int) -> tuple[Any, ...]:
        """`struct.unpack` of what lies at `offset`."""
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout)))


@contextmanager
def window(image: Path, start: int = 0, patches: Sequence[Patch] = ()) -> Iterator[Window]:
    """Open `image` for reading from byte `start` on; raises `ImageError` if it cannot be opened."""
    try:
        fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(
            f"cannot read `{image}`: {(error.strerror or str(error)).lower()}"
        ) from error
    try:
        yield Window(fd, start, image.name, patches)
    finally:
        os.close(fd)


def joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges `(start, length)` in order, with those that touch or overlap made one."""
    out: list[tuple[int, int]] = []
    for start, length in sorted(r for r in ranges if r[1] > 0):
        if out and start <= out[-1][0] + out[-1][1]:
            first, had = out[-1]
            out[-1] = (first, max(had, start + length - first))
        else:
            out.append((start, length))
    return out
