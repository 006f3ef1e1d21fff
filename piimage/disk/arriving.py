"""An image that is being unpacked while it is read: who reads what is not there yet waits for it."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, nullcontext
from threading import Condition, Thread
from typing import TYPE_CHECKING

from piimage.disk.atomic import create, require_space, write_errors
from piimage.disk.intake import write_image
from piimage.disk.sparse import allocated_bytes
from piimage.disk.streams import open_image
from piimage.disk.table import SECTOR, declared_end
from piimage.disk.window import blank
from piimage.errors import ImageError, PiimageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_SAMPLE = 1 << 20
#: Seconds between looks whether who waits was told to stop.
_LOOK = 0.5


class _ClosedError(PiimageError):
    """Nobody wants the rest."""


class Arriving:
    """The image packed in `source`, unpacked into the scratch file `raw` by a thread that begins now.

    `at_least` is how large it is, if that is known to be more than where its partitions end. Raises `ImageError` for
    what holds no image, `WriteFailedError` when there is no room; `close` ends the thread.
    """

    def __init__(self, source: Path, raw: Path, *, at_least: int = 0) -> None:
        self.raw, self._source = raw, source
        #: Whether who waits should stop to.
        self.stopped: Callable[[], bool] = lambda: False
        self.identity = _identity(source)
        self._changed = Condition()
        self._reached, self._ended, self._closed = 0, False, False
        self._error: BaseException | None = None
        require_space(raw.parent, allocated_bytes(source))
        with write_errors(raw):
            create(raw, 0o600)
        self._thread = Thread(target=self._unpack, name="unpack", daemon=True)
        self._thread.start()
        try:
            self._wait(SECTOR)
            self.size = max(at_least, declared_end(raw))
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._source.name

    @contextmanager
    def opened(self) -> Iterator[_Content]:
        """Its content; reading waits for what is not there yet, and raises what unpacking it raised."""
        fd = os.open(self.raw, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield _Content(fd, self)
        finally:
            os.close(fd)

    def wait(self, end: int) -> None:
        """Return when all before byte `end` is there.

        Raises what unpacking raised, `ImageError` if the image ends before, `KeyboardInterrupt` once `stopped()`.
        """
        self._wait(min(end, self.size))

    def finish(self) -> int:
        """Wait for the end, and return how many bytes the image has; raises as `wait` does."""
        self.wait(self.size)
        with self._changed:
            while not self._ended:
                if self.stopped():
                    raise KeyboardInterrupt
                self._changed.wait(_LOOK)
            if self._error is not None:
                raise self._error
            return self._reached

    def close(self) -> None:
        """End the unpacking, wherever it is."""
        self._closed = True
        self._thread.join()

    def _wait(self, end: int) -> None:
        with self._changed:
            while self._reached < end and not self._ended:
                if self.stopped():
                    raise KeyboardInterrupt
                self._changed.wait(_LOOK)
            if self._reached >= end:
                return
            if self._error is not None:
                raise self._error
            raise ImageError(
                f"`{self.name}` is truncated: the image in it has {self._reached} bytes, its partitions have {end}"
            )

    def _unpack(self) -> None:
        error: BaseException | None = None
        try:
            with write_errors(self.raw), open_image(self._source) as stream:
                write_image(stream, self.raw, self.name, each=self._more)
        except BaseException as caught:  # noqa: BLE001 -- raised where it is read
            error = caught
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def _more(self, piece: bytes) -> None:
        if self._closed:
            raise _ClosedError("nobody wants the rest")
        with self._changed:
            self._reached += len(piece)
            self._changed.notify_all()


class _Content:
    def __init__(self, fd: int, image: Arriving) -> None:
        self._fd, self._image = fd, image

    @property
    def size(self) -> int:
        return self._image.size

    def pread(self, length: int, offset: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        self._image.wait(offset + length)
        return os.pread(self._fd, length, offset).ljust(length, b"\0")

    def read_into(self, view: memoryview, offset: int) -> int:
        length = max(0, min(len(view), self.size - offset))
        self._image.wait(offset + length)
        count = os.preadv(self._fd, [view[:length]], offset) if length else 0
        # Zeros are left out until something follows them.
        blank(view[count:length])
        return length

    def lent(self, length: int, offset: int) -> AbstractContextManager[None]:  # noqa: ARG002 -- the protocol's shape
        return nullcontext()

    def proves(self, view: memoryview, offset: int) -> bool:  # noqa: ARG002 -- the protocol's shape
        return False


def _identity(source: Path) -> str:
    """Told by its size, beginning and end, which has the checksum of what is packed in all formats that we read."""
    try:
        with source.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            hasher = hashlib.sha256(b"%d\n" % size)
            for at in (0, size // 2, max(0, size - _SAMPLE)):
                hasher.update(os.pread(file.fileno(), _SAMPLE, at))
            return hasher.hexdigest()
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise ImageError(f"cannot read `{source}`: {words}") from error
