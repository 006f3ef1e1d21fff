"""Reading an image in frames from any place: only frames that are asked for are unpacked, and none unproven."""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from blake3 import blake3

from piimage.disk.chunks import Chunks
from piimage.disk.framed import CHUNK, read_layout
from piimage.disk.window import blank
from piimage.disk.zstd import zstd
from piimage.errors import ImageError, VerifyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.disk.framed import Layout

#: Chunks kept, 4 MiB each: what a card's requests in flight read, what is read ahead of them, and what cards
#: that are a little behind still want.
_KEPT = 8
_AHEAD = 2
_THREADS = 2
#: Bytes that zstd is given, and asked for, at once. More would be allocated anew each time, and kept by malloc.
_PIECE = 256 << 10


class Framed:
    """An image in frames at `path`; its content is unpacked once for all who have it open."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.layout = path, layout
        self._lock, self._users = Lock(), 0
        self._content: FramedContent | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path.name

    @property
    def identity(self) -> str:
        """The digest over the digests of all frames."""
        return self.layout.digest

    @contextmanager
    def opened(self) -> Iterator[FramedContent]:
        """Its content; raises `ImageError` if the file cannot be opened."""
        with self._lock:
            content = self._content = self._content or FramedContent(self.path, self.layout)
            self._users += 1
        try:
            yield content
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    content.close()
                    self._content = None


class FramedContent:
    """The bytes of an image in frames; reading raises `VerifyError` for a frame that is not what was packed."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._name, self._layout = path.name, layout
        self.size = layout.size
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise ImageError(f"cannot read `{path}`: {words}") from error
        self._chunks = Chunks(self._unpack, size=CHUNK, count=_KEPT, threads=_THREADS)
        self._zeros = [start for start, _ in layout.zero]
        self._wanted = sorted({n for start, length in layout.data for n in _numbers(start, length)})

    def close(self) -> None:
        """End the threads."""
        self._chunks.close()
        os.close(self._fd)

    def pread(self, length: int, offset: int) -> bytes:
        """Bytes of one frame, for who reads here and there."""
        length = min(length, self.size - offset, CHUNK - offset % CHUNK)
        if length <= 0:
            return b""
        if self._is_zero(offset, length):
            return bytes(length)
        with self._chunks.held(offset // CHUNK) as content:
            return bytes(content[offset % CHUNK :][:length])

    def read_into(self, view: memoryview, offset: int) -> int:
        """Bytes of one frame, for who reads on from here: those behind it are unpacked ahead."""
        length = min(len(view), self.size - offset, CHUNK - offset % CHUNK)
        if length <= 0:
            return 0
        if self._is_zero(offset, length):
            blank(view[:length])
            return length
        number = offset // CHUNK
        place = bisect_right(self._wanted, number)
        with self._chunks.held(number, self._wanted[place : place + _AHEAD]) as content:
            view[:length] = content[offset % CHUNK :][:length]
        return length

    def proves(self, view: memoryview, offset: int) -> bool:
        """Whether `view` holds all that one frame holds, by its digest: that frame is not unpacked."""
        number, inside = divmod(offset, CHUNK)
        if inside or offset >= self.size or len(view) != self._layout.length(number):
            return False
        return blake3(view).digest() == self._layout.digests[number]

    def _is_zero(self, offset: int, length: int) -> bool:
        """Whether the index says that these bytes are zero."""
        at = bisect_right(self._zeros, offset) - 1
        return at >= 0 and offset + length <= sum(self._layout.zero[at])

    def _unpack(self, number: int, view: memoryview) -> int:
        """Put the content of a frame into `view`, proven; its length."""
        size = self._layout.length(number)
        try:
            filled = self._decompressed(number, view[:size])
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise ImageError(f"cannot read `{self._name}`: {words}") from error
        except zstd.ZstdError:
            filled = -1
        if filled != size or blake3(view[:size]).digest() != self._layout.digests[number]:
            raise VerifyError(
                f"`{self._name}` is damaged: byte {number * CHUNK} to {number * CHUNK + size} of the image in it "
                "are not what was packed",
                hint="build it again, or fetch it again",
            )
        return size

    def _decompressed(self, number: int, view: memoryview) -> int:
        """How many bytes the frame holds; they are in `view`, as far as they fit into it."""
        start, length = self._layout.frames[number]
        decoder = zstd.ZstdDecompressor()
        taken = filled = 0
        while not decoder.eof and filled <= len(view):
            packed = b""
            if decoder.needs_input:
                packed = os.pread(self._fd, min(_PIECE, length - taken), start + taken)
                taken += len(packed)
                if not packed:
                    break
            content = decoder.decompress(packed, max_length=_PIECE)
            if filled + len(content) <= len(view):
                view[filled : filled + len(content)] = content
            filled += len(content)
        return filled


def open_framed(path: Path) -> Framed | None:
    """The image in frames in this file, None if it is none of ours; raises `ImageError` for a damaged one."""
    layout = read_layout(path)
    return Framed(path, layout) if layout else None


def _numbers(start: int, length: int) -> range:
    """The frames that these bytes lie in."""
    return range(start // CHUNK, (start + length - 1) // CHUNK + 1)
