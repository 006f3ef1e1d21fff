"""Reading an image in frames from any place: only frames that are asked for are unpacked, and none unproven."""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock, Semaphore
from typing import TYPE_CHECKING

import zstandard
from blake3 import blake3

from piimage.disk.chunks import Chunks
from piimage.disk.framed import CHUNK, LARGEST, read_layout
from piimage.disk.window import blank
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
#: Chunks that are lent out until they are written. A card that hangs keeps them: the rest is for the others.
_LENT = 3


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
            content.is_shared = self._users > 1
        try:
            yield content
        finally:
            with self._lock:
                self._users -= 1
                content.is_shared = self._users > 1
                if not self._users:
                    content.close()
                    self._content = None


class FramedContent:
    """The bytes of an image in frames; reading raises `VerifyError` for a frame that is not what was packed."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._name, self._layout = path.name, layout
        self.size = layout.size
        #: Whether several have it open; then chunks are not lent, for the slowest would have them all.
        self.is_shared = False
        self._lendable = Semaphore(_LENT)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise ImageError(f"cannot read `{path}`: {words}") from error
        self._chunks = Chunks(self._unpack, size=CHUNK, count=_KEPT, threads=_THREADS)
        #: Where threads put packed frames, in memory that is allocated once, as that of the chunks.
        self._rooms: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_THREADS):
            self._rooms.put(memoryview(mmap.mmap(-1, LARGEST)))
        self._zeros = [start for start, _ in layout.zero]
        self._wanted = sorted({n for start, length in layout.data for n in _numbers(start, length)})

    def close(self) -> None:
        """End the threads, and let go of the memory: this and its chunks know each other, so it would stay a while."""
        self._chunks.close()
        self._rooms = SimpleQueue()
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
        with self._onward(offset) as content:
            view[:length] = content[:length]
        return length

    @contextmanager
    def lent(self, length: int, offset: int) -> Iterator[memoryview | None]:
        """See `Content`; as `read_into`, for who reads on from here."""
        inside = offset % CHUNK + length <= self._layout.length(offset // CHUNK)
        lies_there = inside and not self._is_zero(offset, length)
        if self.is_shared or not lies_there or not self._lendable.acquire(blocking=False):
            yield None
            return
        try:
            with self._onward(offset) as content:
                yield content[:length]
        finally:
            self._lendable.release()

    @contextmanager
    def _onward(self, offset: int) -> Iterator[memoryview]:
        """From this byte to the end of its frame, while those behind it are unpacked."""
        number, inside = divmod(offset, CHUNK)
        place = bisect_right(self._wanted, number)
        with self._chunks.held(number, self._wanted[place : place + _AHEAD]) as content:
            yield content[inside:]

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
        except zstandard.ZstdError:
            filled = -1
        if filled != size or blake3(view[:size]).digest() != self._layout.digests[number]:
            raise VerifyError(
                f"`{self._name}` is damaged: byte {number * CHUNK} to {number * CHUNK + size} of the image in it "
                "are not what was packed",
                hint="build it again, or fetch it again",
            )
        return size

    def _decompressed(self, number: int, view: memoryview) -> int:
        """How many bytes the frame holds, more than `view` has if it holds more; they are in `view`."""
        start, length = self._layout.frames[number]
        room = self._rooms.get()
        try:
            packed = room[:length]
            taken = 0
            while taken < length and (
                count := os.preadv(self._fd, [packed[taken:]], start + taken)
            ):
                taken += count
            # The whole frame and room for all that it holds: zstd unpacks it there, and not into a window of its own.
            with zstandard.ZstdDecompressor().stream_reader(packed[:taken]) as frame:
                filled = 0
                while filled < len(view) and (count := frame.readinto(view[filled:])):
                    filled += count
                return filled + len(frame.read(1))
        finally:
            self._rooms.put(room)


def open_framed(path: Path) -> Framed | None:
    """The image in frames in this file, None if it is none of ours; raises `ImageError` for a damaged one."""
    layout = read_layout(path)
    return Framed(path, layout) if layout else None


def _numbers(start: int, length: int) -> range:
    """The frames that these bytes lie in."""
    return range(start // CHUNK, (start + length - 1) // CHUNK + 1)
