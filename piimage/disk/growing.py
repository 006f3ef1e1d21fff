"""A file that one thread still writes while another reads it, and what is packed in it."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from threading import Condition
from typing import TYPE_CHECKING

from piimage.disk.onward import sequential
from piimage.disk.streams import format_of, guarded
from piimage.errors import ImageError, PiimageError

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path

#: How much of a file tells what it is.
_HEAD = 8
_DEFLATED = 8
_FEED = 1 << 18


class StartedOverError(PiimageError):
    """The writer began again from nothing: what was read is void."""


class BrokenOffError(PiimageError):
    """The writer gave up; it knows why."""


class Growth:
    """How far the writer is; safe for two threads."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._size = self._round = 0
        self._ended = self._failed = False

    @property
    def round(self) -> int:
        """Counts how often the writer began again."""
        with self._changed:
            return self._round

    @property
    def ended(self) -> bool:
        """Whether the file is whole."""
        with self._changed:
            return self._ended

    def reach(self, size: int) -> None:
        """So many bytes can be read now."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def start_over(self) -> None:
        """The bytes so far are not those of the file; to be told before they are touched."""
        with self._changed:
            self._size = 0
            self._round += 1
            self._changed.notify_all()

    def end(self, *, failed: bool = False) -> None:
        """No more will come; what was said first counts."""
        with self._changed:
            if not self._ended and not self._failed:
                self._ended, self._failed = not failed, failed
            self._changed.notify_all()

    def wait(self, number: int) -> None:
        """Wait for the end; raises as `beyond` does."""
        at = 0
        while (end := self.beyond(at, number)) > at:
            at = end

    def beyond(self, at: int, number: int) -> int:
        """Wait until there are bytes beyond `at`, and return how far they go; `at` itself at the end.

        Raises `StartedOverError` when `number` is no longer the round, `BrokenOffError` when no more will come
        and the file is not whole.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._round != number or self._size > at or self._ended or self._failed
            )
            if self._round != number:
                raise StartedOverError("the file is written anew")
            if self._size <= at and self._failed:
                raise BrokenOffError("the file does not go on")
            return max(self._size, at)


class Follower:
    """Reads the file onward, waiting for what is not there yet."""

    def __init__(self, descriptor: int, growth: Growth) -> None:
        self._descriptor, self._growth = descriptor, growth
        self._at, self._round = 0, growth.round

    def read(self, size: int) -> bytes:
        """At least one byte and at most `size`; b"" at the end of the whole file."""
        end = self._growth.beyond(self._at, self._round)
        data = self._pread(min(size, end - self._at))
        self._at += len(data)
        return data

    def peek(self, size: int) -> bytes:
        """The next bytes, as many as that unless the file ends before."""
        end = self._at
        while end < self._at + size and (more := self._growth.beyond(end, self._round)) > end:
            end = more
        return self._pread(min(size, end - self._at))

    def _pread(self, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._at)
        if self._growth.round != self._round:  # it may have begun again in between
            raise StartedOverError("the file is written anew")
        if size and not data:
            raise BrokenOffError("somebody else made the file shorter")
        return data


@contextmanager
def follow(path: Path, growth: Growth, name: str) -> Iterator[io.RawIOBase | None]:
    """The image in the growing file, decompressed as it comes; None if that can only be done once it is whole.

    Reading raises what `Follower` raises, and `ImageError` for data that is damaged or, once the file is
    whole, ends early. Whether a zip holds what was read shows only in its end: see `confirmed`.
    """
    with ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        file = Follower(descriptor, growth)
        kind = format_of(file.peek(_HEAD), name)
        if kind == "zip":
            member = ZipMember.first(file)
            yield guarded(member.read, name) if member else None
        else:
            yield None if kind == "qcow2" else sequential(kind, file, name, stack)


class ZipMember:
    """The first member of a zip, unpacked without its index, which stands at the end (APPNOTE 4.3)."""

    def __init__(self, file: Follower) -> None:
        self._file = file
        self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)

    @classmethod
    def first(cls, file: Follower) -> ZipMember | None:
        """The member if it is an image that can be read onward."""
        head = file.read(30)
        while len(head) < 30 and (more := file.read(30 - len(head))):  # noqa: PLR2004 -- of a local header
            head += more
        if len(head) < 30:  # noqa: PLR2004 -- see above
            return None
        flags, method = struct.unpack_from("<HH", head, 6)
        name_length, extra_length = struct.unpack_from("<HH", head, 26)
        left, rest = name_length + extra_length, b""
        while len(rest) < left and (more := file.read(left - len(rest))):
            rest += more
        name = rest[:name_length].lower()
        if flags & 1 or method != _DEFLATED or not name.endswith((b".img", b".raw")):
            return None
        return cls(file)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises `EOFError` or `zlib.error`."""
        while not self._decoder.eof:
            feed = self._decoder.unconsumed_tail or self._file.read(_FEED)
            data = self._decoder.decompress(feed, size)
            if data:
                return data
            if not feed:
                raise EOFError
        return b""


def confirmed(path: Path, size: int, crc: int) -> bool:
    """Whether the whole zip's only image is its first member, with that size and CRC-32.

    Raises `ImageError` for a damaged index.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            images = [
                member
                for member in archive.infolist()
                if member.filename.lower().endswith((".img", ".raw"))
            ]
    except zipfile.BadZipFile as error:
        raise ImageError(f"the zip is truncated or damaged: {str(error).lower()}") from error
    wanted = [(0, size, crc)]
    return [(m.header_offset, m.file_size, m.CRC) for m in images] == wanted
