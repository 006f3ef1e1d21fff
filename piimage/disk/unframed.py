"""Reading an image in frames from any place: only frames that are asked for are unpacked, and none unproven."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from blake3 import blake3

from piimage.disk.framed import CHUNK, read_layout
from piimage.disk.zstd import zstd
from piimage.errors import ImageError, VerifyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from piimage.disk.framed import Layout

#: Chunks kept, 4 MiB each: what a card's requests in flight read, what is read ahead of them, and what cards
#: that are a little behind still want.
_KEPT = 8
_AHEAD = 2
_THREADS = 2


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
        self._kept: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(_THREADS, "unpack")
        self._zeros = [start for start, _ in layout.zero]
        self._wanted = sorted({n for start, length in layout.data for n in _numbers(start, length)})

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
        os.close(self._fd)

    def pread(self, length: int, offset: int) -> bytes:
        """Bytes of one frame, for who reads here and there."""
        length = min(length, self.size - offset, CHUNK - offset % CHUNK)
        if length <= 0:
            return b""
        if self._is_zero(offset, length):
            return bytes(length)
        return self._chunk(offset // CHUNK)[offset % CHUNK :][:length]

    def read_into(self, view: memoryview, offset: int) -> int:
        """Bytes of one frame, for who reads on from here: those behind it are unpacked ahead."""
        length = min(len(view), self.size - offset, CHUNK - offset % CHUNK)
        if length <= 0:
            return 0
        if self._is_zero(offset, length):
            view[:length] = bytes(length)
            return length
        content = self._chunk(offset // CHUNK, ahead=True)
        view[:length] = memoryview(content)[offset % CHUNK :][:length]
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

    def _chunk(self, number: int, *, ahead: bool = False) -> bytes:
        with self._lock:
            wanted = [number]
            if ahead:
                place = bisect_right(self._wanted, number)
                wanted += self._wanted[place : place + _AHEAD]
            for each in wanted:
                if each not in self._kept:
                    self._kept[each] = self._pool.submit(self._unpack, each)
                self._kept.move_to_end(each)
            found = self._kept[number]
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found.result()

    def _unpack(self, number: int) -> bytes:
        """The content of a frame, proven."""
        start, length = self._layout.frames[number]
        size = self._layout.length(number)
        try:
            packed = os.pread(self._fd, length, start)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise ImageError(f"cannot read `{self._name}`: {words}") from error
        try:
            content = zstd.ZstdDecompressor().decompress(packed, max_length=size + 1)
        except (zstd.ZstdError, EOFError):
            content = b""
        if len(content) != size or blake3(content).digest() != self._layout.digests[number]:
            raise VerifyError(
                f"`{self._name}` is damaged: byte {number * CHUNK} to {number * CHUNK + size} of the image in it "
                "are not what was packed",
                hint="build it again, or fetch it again",
            )
        return content


def open_framed(path: Path) -> Framed | None:
    """The image in frames in this file, None if it is none of ours; raises `ImageError` for a damaged one."""
    layout = read_layout(path)
    return Framed(path, layout) if layout else None


def _numbers(start: int, length: int) -> range:
    """The frames that these bytes lie in."""
    return range(start // CHUNK, (start + length - 1) // CHUNK + 1)
