"""Images as they come: raw, xz, gzip, zstd, zip or qcow2, told apart by their first bytes.

A stream never passes a part for the whole: truncated or damaged data is an `ImageError`.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tempfile
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from piimage.disk.atomic import full_disk
from piimage.errors import ImageError, WriteFailedError
from piimage.progress import human
from piimage.run import failure, process, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: xz -9 needs 65 MiB to decompress; what asks for more than this is a bomb.
_XZ_MEMORY = 512 << 20
_QCOW2_DATA_FILE = 0x4
_ZIP_ENCRYPTED = 0x1
_CHUNK = 1 << 20
#: No card image is larger; a few kilobytes of compressed zeros would be otherwise.
MAX_SIZE = 1 << 40
_MAGIC = {
    b"\xfd7zXZ\0": "xz",
    b"\x1f\x8b": "gz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"PK\x03\x04": "zip",
    b"QFI\xfb": "qcow2",
}
_UNSUPPORTED = {b"BZh": "bzip2", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR", b"\x04\x22\x4d\x18": "lz4"}
ACCEPTED = "`.img`, `.img.xz`, `.img.gz`, `.img.zst`, `.zip` or `.qcow2`"


class Readable(Protocol):
    """What can be read onward."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" at the end only."""


def image_format(path: Path) -> str:
    """`raw`, `xz`, `gz`, `zst`, `zip` or `qcow2`, by the first bytes; else `ImageError`."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise ImageError(f"cannot read `{path}`: {words}") from error
    return format_of(head, path.name)


def format_of(head: bytes, name: str) -> str:
    """As `image_format`, of the file `name` that begins with these eight bytes."""
    for magic, kind in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise ImageError(f"`{name}` is {kind} data; an image is {ACCEPTED}")
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "raw")


@contextmanager
def open_image(path: Path, *, scratch: Path | None = None) -> Iterator[io.RawIOBase]:
    """Open an image for reading, decompressed.

    `scratch` is a directory for the raw copy that qcow2 needs (default: the temporary directory).
    Reading raises `ImageError` for data that is damaged or ends early.
    """
    kind = image_format(path)
    with ExitStack() as stack:
        if kind == "qcow2":
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix=".qcow2-", dir=scratch))
            )
            convert_qcow2(path, directory / "raw")
            path, kind = directory / "raw", "raw"
        file = stack.enter_context(path.open("rb"))
        yield _Guarded(_reader(kind, path, file, stack), path.name)


def guarded(read: Callable[[int], bytes], name: str) -> io.RawIOBase:
    """A stream of what `read` gives, its decompression errors told as `ImageError`s about `name`."""
    return _Guarded(read, name)


def convert_qcow2(path: Path, target: Path) -> None:
    """Write the raw content of a qcow2 image to `target`, sparse.

    Refuses (`ImageError`) images that name another file: qemu would open whatever they name.
    """
    with path.open("rb") as file:
        head = file.read(104).ljust(104, b"\0")
    version, size = int.from_bytes(head[4:8], "big"), int.from_bytes(head[24:32], "big")
    features = int.from_bytes(head[72:80], "big") if version > 2 else 0  # noqa: PLR2004 -- since v3
    if int.from_bytes(head[8:16], "big") or features & _QCOW2_DATA_FILE:
        raise ImageError(
            f"`{path.name}` is only part of an image: it refers to another file",
            hint="make one file of it with `qemu-img convert -O qcow2`",
        )
    if int.from_bytes(head[32:36], "big"):
        raise ImageError(f"`{path.name}` is encrypted, which is not supported")
    if size > MAX_SIZE:
        raise ImageError(f"`{path.name}` holds more than {human(MAX_SIZE)}")
    # Absolute names: qemu-img takes what stands before a colon for a protocol.
    _check_qcow2(path, 1 << min(21, int.from_bytes(head[20:24], "big")))
    names = (path.absolute(), target.absolute())
    result = run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", *names], check=False)
    if result.returncode:
        words = failure(result).message
        if full_disk(words):
            raise WriteFailedError(f"cannot write `{target}`: no space left on device")
        words = words.partition("\n")[2]
        raise ImageError(
            f"`{path.name}` is damaged: `qemu-img` cannot convert it\n{words}".rstrip()
        )


def _check_qcow2(path: Path, cluster: int) -> None:
    """Raise `ImageError` for a short file: `qemu-img convert` reads zeros beyond its end.

    A cut inside the last cluster is not seen, since writers may end there rightly.
    """
    argv = ["qemu-img", "check", "-f", "qcow2", "--output=json"]
    result = run([*argv, path.absolute()], check=False)
    try:
        report = json.loads(result.stdout)
        end, errors = int(report["image-end-offset"]), int(report["check-errors"])
        errors += int(report.get("corruptions", 0))
    except (ValueError, KeyError):
        words = failure(result).message.partition("\n")[2] if result.returncode else ""
        raise ImageError(f"`{path.name}` is damaged\n{words}".rstrip()) from None
    if end >= path.stat().st_size + cluster:
        raise ImageError(
            f"`{path.name}` is truncated: it has {path.stat().st_size} bytes and uses {end}"
        )
    if errors:
        raise ImageError(f"`{path.name}` is damaged: `qemu-img check` finds {errors} errors")


class _Guarded(io.RawIOBase):
    """A stream whose decompression errors are `ImageError`s."""

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self._read, self._name = read, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase takes any buffer
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _take(self, size: int) -> bytes:
        try:
            return self._read(size)
        except EOFError as error:
            raise ImageError(
                f"`{self._name}` is truncated: its compressed data ends early"
            ) from error
        except (lzma.LZMAError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as error:
            raise ImageError(f"`{self._name}` is damaged: {str(error).lower()}") from error
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise ImageError(f"cannot read `{self._name}`: {words}") from error


def _reader(kind: str, path: Path, file: IO[bytes], stack: ExitStack) -> Callable[[int], bytes]:
    if kind == "xz":
        return Xz(file).read
    if kind == "gz":
        return stack.enter_context(gzip.GzipFile(fileobj=file)).read
    if kind == "zip":
        return _zip_member(path, file, stack).read
    if kind == "zst":
        words = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- the stack closes it
        child = stack.enter_context(process(["zstd", "-dcq"], stdin=file, stderr=words))
        assert child.stdout is not None  # noqa: S101 -- `process` made a pipe
        return Child(child.stdout, child.wait, words, path.name).read
    return file.read


class Xz:
    """Concatenated xz streams with a bound on memory, which `lzma.open` cannot set."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder: lzma.LZMADecompressor | None = None
        self._input = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises `EOFError` or `lzma.LZMAError`."""
        while True:
            if self._decoder is None and not self._next_stream():
                return b""
            assert self._decoder is not None  # noqa: S101 -- for mypy; `_next_stream` has set it
            feed, self._input = self._input, b""
            if not feed and self._decoder.needs_input:
                feed = self._file.read(_CHUNK)
                if not feed:
                    raise EOFError
            data = self._decoder.decompress(feed, size)
            if self._decoder.eof:
                # What follows a stream is padding (zeros) or another stream.
                self._input, self._decoder = self._decoder.unused_data.lstrip(b"\0"), None
            if data:
                return data

    def _next_stream(self) -> bool:
        """Skip stream padding (zeros); False at the end of the file."""
        while not self._input:
            more = self._file.read(_CHUNK)
            if not more:
                return False
            self._input = more.lstrip(b"\0")
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        return True


class Child:
    """Standard output of a tool; its failure shows at the end of the data, not as a short file."""

    def __init__(
        self, data: IO[bytes], wait: Callable[[], int], words: IO[bytes], name: str
    ) -> None:
        self._data, self._wait, self._words, self._name = data, wait, words, name

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises `ImageError` if the tool failed."""
        data = self._data.read(size)
        if len(data) < size and self._wait() != 0:
            self._words.seek(0)
            text = self._words.read().decode(errors="replace").strip().splitlines()
            last = text[-1].rpartition(":")[2].strip().rstrip(". ") if text else "no reason given"
            raise ImageError(f"`{self._name}` is truncated or damaged: {last.lower()}")
        return data


def _zip_member(path: Path, file: IO[bytes], stack: ExitStack) -> IO[bytes]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
    except zipfile.BadZipFile as error:
        raise ImageError(f"`{path.name}` is truncated or damaged: {str(error).lower()}") from error
    members = [m for m in archive.infolist() if not m.is_dir()]
    images = [m for m in members if m.filename.lower().endswith((".img", ".raw"))] or members
    if len(images) != 1:
        raise ImageError(
            f"`{path.name}` must hold exactly one image, it holds {len(images)}",
            hint="unpack it and import the image itself",
        )
    (member,) = images
    if member.flag_bits & _ZIP_ENCRYPTED:
        raise ImageError(f"`{path.name}` is encrypted, which is not supported")
    try:
        return stack.enter_context(archive.open(member))
    except (NotImplementedError, zipfile.BadZipFile) as error:
        raise ImageError(f"`{path.name}` cannot be unpacked: {str(error).lower()}") from error
