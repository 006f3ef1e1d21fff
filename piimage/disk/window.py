"""A read-only view of part of an image; every read is bounded, a hostile offset is an error."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from piimage.disk.slots import Patch


_ZEROS = bytes(64 << 10)


class Content(Protocol):
    """The bytes of an open image; several threads may read them."""

    @property
    def size(self) -> int:
        """How many there are."""

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes from byte `offset` on, b"" at the end only."""

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill `view`, or its beginning, from byte `offset` on; how many bytes, 0 at the end only."""

    def lent(self, length: int, offset: int) -> AbstractContextManager[memoryview | None]:
        """The bytes where they lie in memory already, until the block ends; None if they are to be read."""

    def proves(self, view: memoryview, offset: int) -> bool:
        """Whether `view` is what lies from byte `offset` on, without reading that; False says nothing."""


class Image(Protocol):
    """An image that is no plain file."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def identity(self) -> str:
        """What tells it apart from other images."""

    def opened(self) -> AbstractContextManager[Content]:
        """Its content, for as long as the block runs; raises `ImageError` if it cannot be read."""


class _File:
    """The content of a raw image."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.lseek(fd, 0, os.SEEK_END)

    def pread(self, length: int, offset: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def read_into(self, view: memoryview, offset: int) -> int:
        return os.preadv(self._fd, [view], offset)

    def lent(self, length: int, offset: int) -> AbstractContextManager[None]:  # noqa: ARG002 -- the protocol's shape
        return nullcontext()

    def proves(self, view: memoryview, offset: int) -> bool:  # noqa: ARG002 -- the protocol's shape
        return False


class Window:
    """Bytes `start` to the end of an open image; offsets given to `read` count from `start`.

    `patches` (offsets in the image) are seen as if they were written.
    """

    def __init__(
        self, content: Content, start: int, name: str, patches: Sequence[Patch] = ()
    ) -> None:
        self._content = content
        self.start = start
        self.name = name
        self._patches = patches
        self.size = max(0, content.size - start)

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
            part = self._content.pread(length, self.start + offset)
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


def blank(view: memoryview) -> None:
    """Fill `view` with zeros, without as many beside it."""
    for at in range(0, len(view), len(_ZEROS)):
        view[at : at + len(_ZEROS)] = _ZEROS[: len(view) - at]


@contextmanager
def opened(image: Path | Image) -> Iterator[Content]:
    """The content of an image; raises `ImageError` if it cannot be opened."""
    if not isinstance(image, Path):
        with image.opened() as content:
            yield content
        return
    try:
        fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(
            f"cannot read `{image}`: {(error.strerror or str(error)).lower()}"
        ) from error
    try:
        yield _File(fd)
    finally:
        os.close(fd)


@contextmanager
def window(image: Path | Image, start: int = 0, patches: Sequence[Patch] = ()) -> Iterator[Window]:
    """Open `image` for reading from byte `start` on; raises `ImageError` if it cannot be opened."""
    with opened(image) as content:
        yield Window(content, start, image.name, patches)


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


def gaps(ranges: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """What lies from `start` to `end` and in none of `ranges`, which are in order and do not overlap."""
    out, at = [], start
    for first, length in [*ranges, (end, 0)]:
        if min(first, end) > at:
            out.append((at, min(first, end) - at))
        at = max(at, first + length)
    return out
