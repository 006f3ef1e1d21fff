"""Images in frames: zstd's seekable format, and an index of what is in use and what each frame holds.

    frames      one for each 4 MiB of the image, each complete in itself: `zstd -d` gives the raw image
    index       a skippable frame: magic, BLAKE3 of the rest, JSON (`_encode_index`)
    seek table  zstd's (contrib/seekable_format in zstd's repository): sizes of the frames; it ends the file

Decoders that know neither index nor seek table skip both.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from piimage.disk.window import joined
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Bytes of the image in one frame.
CHUNK = 4 << 20
#: What extents count in.
BLOCK = 4096
_INDEX, _TABLE, _END = 0x184D2A50, 0x184D2A5E, 0x8F92EAB1
_HEADER, _FOOTER, _ENTRY = struct.Struct("<II"), struct.Struct("<IBI"), struct.Struct("<II")
_MAGIC = b"piimage-index 1\n"
_DIGEST = 32
#: More than an index of the largest image with a hole in every other block.
_MOST = 256 << 20
#: More than zstd makes of a chunk that it cannot make smaller.
LARGEST = CHUNK + (64 << 10)

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """An image of `size` bytes in frames.

    `frames` are `(offset, length)` in the file, `digests` BLAKE3 of what they hold. `data` and `zero` are
    `(start, length)` of the image in use, by content, in order. `digest` is of all this.
    """

    size: int
    frames: tuple[Range, ...] = field(repr=False)
    digests: tuple[bytes, ...] = field(repr=False)
    data: tuple[Range, ...] = field(repr=False)
    zero: tuple[Range, ...] = field(repr=False)
    digest: str

    @property
    def mapped(self) -> list[Range]:
        """All that is in use, whatever it holds."""
        return joined([*self.data, *self.zero])

    def length(self, number: int) -> int:
        """Bytes of the image in frame `number`."""
        return min(CHUNK, self.size - number * CHUNK)


def trailer(
    size: int,
    lengths: Sequence[int],
    digests: Sequence[bytes],
    data: Sequence[Range],
    zero: Sequence[Range],
) -> bytes:
    """What follows the frames, whose `lengths` are in bytes of the file: index and seek table."""
    body = _encode_index(size, digests, data, zero)
    index = _MAGIC + blake3(body).digest() + body
    held = [min(CHUNK, size - at) for at in range(0, size, CHUNK)]
    entries = b"".join(_ENTRY.pack(*both) for both in zip(lengths, held, strict=True))
    table = entries + _FOOTER.pack(len(lengths), 0, _END)
    return b"".join(
        (_HEADER.pack(_INDEX, len(index)), index, _HEADER.pack(_TABLE, len(table)), table)
    )


def read_layout(path: Path) -> Layout | None:
    """The layout of a file of ours; None for any other file, other compressed ones among them.

    Raises `ImageError` for a damaged one. What is said of the frames is only believed when they are read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return _read(file.fileno(), path.name)
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise ImageError(f"cannot read `{path}`: {words}") from error


def _read(fd: int, name: str) -> Layout | None:
    entries, end = _seek_table(fd)
    used = sum(length for length, _ in entries)
    head = os.pread(fd, _HEADER.size + len(_MAGIC) + _DIGEST, used)
    if not entries or len(head) < _HEADER.size + len(_MAGIC) + _DIGEST:
        return None
    magic, length = _HEADER.unpack_from(head)
    if magic != _INDEX or head[_HEADER.size :][: len(_MAGIC)] != _MAGIC:
        return None
    if used + _HEADER.size + length != end or length > _MOST:
        raise _damaged(name)
    body = os.pread(fd, end - used - len(head), used + len(head))
    if blake3(body).digest() != head[-_DIGEST:]:
        raise _damaged(name)
    found = _decode_index(body, name)
    places, at = [], 0
    for number, (packed, held) in enumerate(entries):
        if not 0 < packed <= LARGEST or held != found.length(number):
            raise _damaged(name)
        places.append((at, packed))
        at += packed
    if len(places) != len(found.digests):
        raise _damaged(name)
    return Layout(found.size, tuple(places), found.digests, found.data, found.zero, found.digest)


def _seek_table(fd: int) -> tuple[list[Range], int]:
    """Sizes of each frame, packed and unpacked, and where the table begins; nothing if there is none."""
    size = os.fstat(fd).st_size
    raw = os.pread(fd, _FOOTER.size, max(0, size - _FOOTER.size))
    if len(raw) < _FOOTER.size:
        return [], 0
    count, descriptor, magic = _FOOTER.unpack(raw)
    length = count * _ENTRY.size + _FOOTER.size
    begin = size - length - _HEADER.size
    # The descriptor's other bits say that entries are longer: not a file of ours.
    if magic != _END or descriptor or begin < 0 or length > _MOST:
        return [], 0
    table = os.pread(fd, _HEADER.size + length, begin)
    if len(table) < _HEADER.size + length or _HEADER.unpack_from(table) != (_TABLE, length):
        return [], 0
    return [_ENTRY.unpack_from(table, _HEADER.size + n * _ENTRY.size) for n in range(count)], begin


def _encode_index(
    size: int, digests: Sequence[bytes], data: Sequence[Range], zero: Sequence[Range]
) -> bytes:
    kinds = [(start, length, "data") for start, length in data]
    kinds += [(start, length, "zero") for start, length in zero]
    document = {
        "version": 1,
        "size": size,
        "chunk": CHUNK,
        "block": BLOCK,
        "blake3": [digest.hex() for digest in digests],
        "extents": [
            [start // BLOCK, -(-length // BLOCK), kind] for start, length, kind in sorted(kinds)
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _decode_index(body: bytes, name: str) -> Layout:
    """An index, without its frames. Its digest was right: what is wrong now was made wrong."""
    try:
        document = json.loads(body)
        size = document["size"]
        known = document["version"], document["chunk"], document["block"]
        digests = tuple(bytes.fromhex(digest) for digest in document["blake3"])
        data = _extents(document["extents"], "data", size)
        zero = _extents(document["extents"], "zero", size)
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(name) from error
    if known != (1, CHUNK, BLOCK):
        raise ImageError(
            f"the index of `{name}` is of a kind that this piimage does not know",
            hint="a newer piimage made it: use that one, or unpack it with `zstd -d`",
        )
    if type(size) is not int or len(digests) != -(-size // CHUNK):
        raise _damaged(name)
    return Layout(size, (), digests, data, zero, blake3(body).hexdigest())


def _extents(listed: Sequence[Any], kind: str, size: int) -> tuple[Range, ...]:
    found: list[Range] = []
    for first, count, what in listed:
        start, end = first * BLOCK, min((first + count) * BLOCK, size)
        if not 0 <= start < end:
            raise ValueError(first)
        if what == kind:
            found.append((start, end - start))
    return tuple(joined(found))


def _damaged(name: str) -> ImageError:
    return ImageError(
        f"`{name}` is damaged: its index is not what was written",
        hint="build it again, or fetch it again",
    )
