"""Packing an image into frames, on all cores; equal images give equal files."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zstandard
from blake3 import blake3

from piimage.disk.framed import BLOCK, CHUNK, Range, trailer
from piimage.disk.window import joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from piimage.progress import Task

#: What `zstd` itself does by default.
_LEVEL = 3
_ZEROS = bytes(BLOCK)
#: Chunks under way for each core: one is being packed, one waits for its turn to be written.
_EACH = 2


@dataclass(frozen=True, slots=True)
class _Packed:
    """A frame, BLAKE3 of what it holds, and which of the mapped blocks in it are data and which zero."""

    frame: bytes
    digest: bytes
    data: list[Range]
    zero: list[Range]


def pack(raw: Path, target: Path, mapped: Sequence[Range], task: Task) -> None:
    """Write the raw image `raw` in frames to `target`; `mapped` is what of it is in use, in order.

    Raises `OSError`.
    """
    cores = os.cpu_count() or 1
    with (
        raw.open("rb", buffering=0) as source,
        target.open("wb") as sink,
        ThreadPoolExecutor(cores, "pack") as pool,
    ):
        size = os.fstat(source.fileno()).st_size
        task.total(size)
        chunks = iter(_chunks(size, mapped))
        waiting: deque[Future[_Packed]] = deque()
        done: list[_Packed] = []
        lengths: list[int] = []
        try:
            while True:
                while len(waiting) < _EACH * cores and (chunk := next(chunks, None)):
                    waiting.append(pool.submit(_pack, source.fileno(), *chunk))
                if not waiting:
                    break
                packed = waiting.popleft().result()
                sink.write(packed.frame)
                lengths.append(len(packed.frame))
                done.append(_Packed(b"", packed.digest, packed.data, packed.zero))
                task.advance(min(CHUNK, size - (len(done) - 1) * CHUNK))
        finally:
            pool.shutdown(cancel_futures=True)
        data = joined([extent for packed in done for extent in packed.data])
        zero = joined([extent for packed in done for extent in packed.zero])
        sink.write(trailer(size, lengths, [packed.digest for packed in done], data, zero))


def _chunks(size: int, mapped: Sequence[Range]) -> Iterator[tuple[Range, list[Range]]]:
    """Each chunk of the image, with what of it is in use, in whole blocks."""
    wide = joined(
        [
            (start // BLOCK * BLOCK, -(-(start + length) // BLOCK) * BLOCK - start // BLOCK * BLOCK)
            for start, length in mapped
        ]
    )
    starts = [start for start, _ in wide]
    for at in range(0, size, CHUNK):
        end, used = min(at + CHUNK, size), []
        number = max(0, bisect_right(starts, at) - 1)
        while number < len(wide) and wide[number][0] < end:
            first, last = max(at, wide[number][0]), min(end, sum(wide[number]))
            if first < last:
                used.append((first, last - first))
            number += 1
        yield (at, end - at), used


def _pack(fd: int, chunk: Range, used: Sequence[Range]) -> _Packed:
    start, length = chunk
    content = os.pread(fd, length, start)
    if len(content) < length:
        raise OSError(None, "the image became shorter while it was being packed")
    found: dict[bool, list[Range]] = {True: [], False: []}
    for first, count in used:
        for at in range(first - start, first - start + count, BLOCK):
            block = content[at : min(at + BLOCK, length)]
            found[_ZEROS.startswith(block)].append((start + at, len(block)))
    # Size and checksum go into each frame, so that `zstd -d` finds damage too.
    compressor = zstandard.ZstdCompressor(
        level=_LEVEL, write_content_size=True, write_checksum=True
    )
    return _Packed(
        compressor.compress(content),
        blake3(content).digest(),
        joined(found[False]),
        joined(found[True]),
    )
