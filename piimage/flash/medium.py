"""The bytes of an open card: whole sectors past the page cache, tried again, every error with its place."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import time
from threading import Event as Flag
from typing import TYPE_CHECKING

from piimage.errors import PiimageError, VerifyError, WriteFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 4 << 20
#: Where a chunk is refused, it is tried again in pieces of this size, to name the place.
_PIECE = 64 << 10
#: Seconds to wait before each further try.
_DELAYS = (0.1, 0.5, 2.0)
#: What a card answers that is there no longer (or a reader that gave up).
_GONE = (errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ESHUTDOWN, errno.EBADF)
#: What may be better a moment later.
_PASSING = (errno.EIO, errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT)
_BLKFLSBUF = 0x1261  # linux/fs.h: _IO(0x12, 97)


class CardGoneError(WriteFailedError):
    """The card was pulled, or its reader stopped answering."""


class Medium:
    """`size` bytes of a card behind `fd`, which is open for reading and writing.

    `place` tells in words what lies at a byte. Offsets and lengths are multiples of the card's sector size, and
    buffers are page aligned (`buffer`). Methods may be called by several threads; `tried` hears of each retry.
    """

    def __init__(
        self,
        fd: int,
        size: int,
        *,
        place: Callable[[int], str],
        tried: Callable[[str], None] = lambda _: None,
        delays: tuple[float, ...] = _DELAYS,
    ) -> None:
        self.size = size
        #: Completed requests: who watches sees whether the card still answers.
        self.answers = 0
        #: Set by who gives the card up: no further request is begun.
        self.given_up = Flag()
        self._fd, self._place, self._tried, self._delays = fd, place, tried, delays
        self._direct = _go_direct(fd, size)

    def write(self, offset: int, view: memoryview) -> None:
        """Write all of `view` at byte `offset`; raises `WriteFailedError` when the card does not take it."""
        self._persist(self._write_once, offset, view, "write to")

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from byte `offset`; raises `VerifyError` when the card does not give it."""
        self._persist(self._read_once, offset, view, "read")

    def flush(self) -> None:
        """Return when everything written is on the card, as far as card and reader tell the truth.

        What is read after this comes from the card, not from this machine's memory.
        """
        self._check_given_up()
        try:
            os.fsync(self._fd)
            self.answers += 1
        except OSError as error:
            raise self._failed(error, "write to", 0, 0) from error
        if not self._direct:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def drop_caches(self) -> None:
        """Let the kernel forget what it holds of the card: others may have read it through the page cache."""
        try:
            fcntl.ioctl(self._fd, _BLKFLSBUF)
        except OSError:  # no block device, or no privilege: reading directly suffices then
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def zero(self, offset: int, length: int) -> None:
        """Write zeros."""
        blank = memoryview(buffer(min(length, 1 << 20))) if length else memoryview(b"")
        for at in range(0, length, len(blank) or 1):
            self.write(offset + at, blank[: min(len(blank), length - at)])

    def _persist(
        self, once: Callable[[int, memoryview], None], offset: int, view: memoryview, verb: str
    ) -> None:
        for delay in (*self._delays, None):
            try:
                once(offset, view)
            except OSError as error:
                if error.errno not in _PASSING or delay is None:
                    self._name_the_place(once, offset, view, verb, error)
                    return
                self._tried(f"could not {verb} byte {offset}: {_words(error)}; trying again")
                time.sleep(delay)
            else:
                return

    def _name_the_place(
        self,
        once: Callable[[int, memoryview], None],
        offset: int,
        view: memoryview,
        verb: str,
        error: OSError,
    ) -> None:
        """Small pieces, one by one: the first that fails is the place. If none fails, all is well after all."""
        if error.errno in _GONE or len(view) <= _PIECE:
            raise self._failed(error, verb, offset, len(view)) from error
        for at in range(0, len(view), _PIECE):
            piece = view[at : at + _PIECE]
            try:
                once(offset + at, piece)
            except OSError as narrow:
                raise self._failed(narrow, verb, offset + at, len(piece)) from narrow

    def _write_once(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            self._check_given_up()
            count = os.pwritev(self._fd, [view[done:]], offset + done)
            if not count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done += count
        self.answers += 1

    def _read_once(self, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            self._check_given_up()
            count = os.preadv(self._fd, [view[done:]], offset + done)
            if not count:
                raise OSError(errno.ENXIO, "the card ends here")
            done += count
        self.answers += 1

    def _check_given_up(self) -> None:
        if self.given_up.is_set():
            raise CardGoneError("the card was given up")

    def _failed(self, error: OSError, verb: str, offset: int, length: int) -> PiimageError:
        where = f"byte {offset} to {offset + length} ({self._place(offset)})"
        if error.errno in _GONE or (error.errno == errno.ENOSPC and self._empty()):
            return CardGoneError(
                f"the card is gone: could not {verb} {where if length else 'it'}: {_words(error)}",
                hint="put it in again; `--resume` goes on where it stopped",
            )
        if error.errno == errno.ENOSPC:
            return WriteFailedError(
                f"there is no room for {where}: {_words(error)}",
                hint="a card that says so has less room than is printed on it: throw it away",
            )
        if verb == "read":
            return VerifyError(
                f"the card could not be read at {where}: {_words(error)}",
                hint="try another reader; if it fails at the same place, the card is worn out",
            )
        return WriteFailedError(
            f"the card did not take {where if length else 'what was written'}: {_words(error)}",
            hint="try another reader or cable; if it fails at the same place, the card is worn out",
        )

    def _empty(self) -> bool:
        """Whether nothing is left of the device: to one that was taken out, the kernel says that there is no room."""
        return stat.S_ISBLK(os.fstat(self._fd).st_mode) and not os.lseek(self._fd, 0, os.SEEK_END)


def buffer(size: int) -> mmap.mmap:
    """Page-aligned memory, which is what reading and writing past the page cache needs."""
    return mmap.mmap(-1, max(size, mmap.PAGESIZE))


def _go_direct(fd: int, size: int) -> bool:
    """Set or clear O_DIRECT, and whether it is set.

    Some file systems (tmpfs before Linux 6.6) do not have it. A file may end in the middle of a block, which could
    not be written so.
    """
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    broken = stat.S_ISREG(os.fstat(fd).st_mode) and size % mmap.PAGESIZE
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT if broken else flags | os.O_DIRECT)
    except OSError:
        return False
    return not broken


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
