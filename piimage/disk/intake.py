"""Bringing an image in from outside: verified, decompressed, sparse, and refused if it is none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.disk.atomic import replacing, require_space
from piimage.disk.sparse import hash_file, write_sparse
from piimage.disk.streams import ACCEPTED, MAX_SIZE, convert_qcow2, image_format, open_image
from piimage.disk.table import check_head, read_table
from piimage.errors import ConfigError, ImageError, VerifyError
from piimage.progress import Progress, Quiet, human

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from pathlib import Path

    from piimage.facts import PartitionTable

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in: digest of the source file as it was given, and the table of the raw image."""

    source_sha256: str
    table: PartitionTable


def import_image(
    src: Path, dst: Path, *, sha256: str | None = None, progress: Progress | None = None
) -> Imported:
    """Write the raw image that `src` holds to `dst`, all or nothing, runs of zeros as holes.

    `sha256` is of the file `src` itself and is checked before anything in it is looked at. Raises
    `VerifyError` for another digest, `ImageError` for what is damaged, truncated, or has no MBR,
    `WriteFailedError` when there is no room.
    """
    progress = progress or Quiet()
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"`{sha256}` is not a sha256, which is 64 hex digits")
    if not src.is_file():
        raise ImageError(f"`{src}` is not a file; an image is {ACCEPTED}")
    kind = image_format(src)
    digest = hash_file(src, progress=progress)
    if sha256 is not None and digest != sha256.lower():
        raise VerifyError(
            f"`{src.name}` has sha256 {digest}, expected {sha256.lower()}",
            hint="the download is damaged or another file: fetch it again",
        )
    require_space(dst.parent, src.stat().st_blocks * 512)
    with replacing(dst) as partial:
        if kind == "qcow2":
            with progress.step(f"converting {src.name}"):
                convert_qcow2(src, partial)
        else:
            _unpack(src, partial, progress)
        try:
            table = read_table(partial)
        except ImageError as error:
            raise ImageError(
                error.message.replace(partial.name, src.name), hint=error.hint
            ) from error
    return Imported(digest, table)


def _unpack(src: Path, partial: Path, progress: Progress) -> None:
    with open_image(src) as stream, progress.step(f"importing {src.name}") as task:
        write_image(stream, partial, src.name, each=lambda chunk: task.advance(len(chunk)))


def write_image(
    stream: io.RawIOBase, path: Path, name: str, *, each: Callable[[bytes], None]
) -> int:
    """Write a raw image to the empty file `path`, runs of zeros as holes, and return its size in bytes.

    `each` is given every piece in order. Raises `ImageError` for what is not one, which calls it `name`.
    """
    at = 0
    with path.open("r+b", buffering=0) as out:
        while chunk := _chunk(stream):
            if at == 0:
                check_head(chunk, name)
            write_sparse(out.fileno(), at, chunk)
            at += len(chunk)
            each(chunk)
            if at > MAX_SIZE:
                raise ImageError(f"`{name}` holds more than {human(MAX_SIZE)}")
        if at == 0:
            check_head(b"", name)
        out.truncate(at)
    return at


def _chunk(stream: io.RawIOBase) -> bytes:
    """A full chunk, or what is left."""
    parts, left = [], _CHUNK
    while left:
        part = stream.read(left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
