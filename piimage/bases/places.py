"""Where a publisher's files are had: the web, a mirror of it, a directory, or one file and what lies beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from piimage.bases.publishers import file_name
from piimage.errors import FetchError
from piimage.web import read_bytes

#: Lists of digests and signatures; Ubuntu's and Fedora's have a few KiB.
_LARGEST = 4 << 20
_ELSEWHERE = "or give `--from FILE` or `--mirror DIR`"


class Place(Protocol):
    """Answers for the addresses that a catalog holds."""

    def small(self, url: str) -> bytes:
        """What is at `url`, of 4 MiB at most; raises `FetchError` when it is not to be had."""

    def image(self, url: str) -> Path | str:
        """The image that `url` means: a file of this machine, or an address to download it from."""


class Web:
    """The addresses themselves, or the same paths below a mirror's address: `MIRROR/HOST/PATH`."""

    def __init__(self, mirror: str = "") -> None:
        self._mirror = mirror.rstrip("/")

    def small(self, url: str) -> bytes:
        """Fetched."""
        data = read_bytes(self.image(url), hint=f"try again later, {_ELSEWHERE}", largest=_LARGEST)
        if data is None:
            raise FetchError(
                f"there is nothing at {self.image(url)}",
                hint=f"the publisher moved it: `piimage base list --refresh` may know more; {_ELSEWHERE}",
            )
        return data

    def image(self, url: str) -> str:
        """The address, at the mirror if there is one."""
        if not self._mirror:
            return url
        parts = urlsplit(url)
        return f"{self._mirror}/{parts.netloc}{parts.path}"


class Directory:
    """A directory that holds `HOST/PATH` as a mirroring tool leaves them, or simply the files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def small(self, url: str) -> bytes:
        """Read."""
        path = self.image(url)
        try:
            return path.read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise FetchError(f"cannot read `{path}`: {reason}") from error

    def image(self, url: str) -> Path:
        """The file; raises `FetchError` that says where it was looked for."""
        parts = urlsplit(url)
        name = file_name(url)
        raw = parts.path.rpartition("/")[2]
        steps = [step for step in parts.path.split("/") if step not in {"", ".", ".."}]
        places = [self._path.joinpath(parts.netloc, *steps), self._path / raw, self._path / name]
        for place in places:
            if place.is_file():
                return place
        raise FetchError(
            f"the mirror `{self._path}` has neither `{parts.netloc}{parts.path}` nor `{name}`",
            hint=f"put the file there: it is published at {url}",
        )


class Beside:
    """One image file; what belongs to it is taken from the same directory, with `prefix`, else from `rest`."""

    def __init__(self, file: Path, rest: Place, *, prefix: str = "") -> None:
        self._file, self._rest, self._prefix = file, rest, prefix

    def small(self, url: str) -> bytes:
        """Read or fetched."""
        path = self._file.parent / f"{self._prefix}{file_name(url)}"
        return path.read_bytes() if path.is_file() else self._rest.small(url)

    def image(self, url: str) -> Path:  # noqa: ARG002 -- the protocol's shape
        """The file, whatever it is called."""
        if not self._file.is_file():
            raise FetchError(f"there is no file `{self._file}`")
        return self._file


def place(mirror: str | None, file: Path | None) -> Place:
    """Where to look; `mirror` is a directory or an address. A mirror stands for the web wholly."""
    rest: Place = Web()
    if mirror and urlsplit(mirror).scheme in {"http", "https"}:
        rest = Web(mirror)
    elif mirror:
        path = Path(mirror).expanduser()
        if not path.is_dir():
            raise FetchError(
                f"the mirror `{mirror}` is neither a directory nor an address",
                hint="see `--mirror` and $PIIMAGE_MIRROR",
            )
        rest = Directory(path)
    return rest if file is None else Beside(file, rest)
