"""Reading bmap files, as builders of images publish them (format: bmap-tools, 1.4 and 2.0)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from piimage.errors import ImageError, VerifyError

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.flash.ranges import Range

_MAX = 64 << 20
_CHUNK = 1 << 20
_PACKED = (".xz", ".gz", ".zst", ".zip")


@dataclass(frozen=True, slots=True)
class Bmap:
    """What `name` says about an image of `size` bytes: ranges in bytes, each with the digest of its content."""

    name: str
    size: int
    algorithm: str
    ranges: tuple[Range, ...]
    digests: tuple[str, ...]

    def check(self, image: Path) -> None:
        """Raise `VerifyError` unless every range of the raw image has its digest."""
        with image.open("rb", buffering=0) as file:
            for (start, length), digest in zip(self.ranges, self.digests, strict=True):
                hasher = hashlib.new(self.algorithm)
                at, end = start, min(start + length, self.size)
                while at < end and (data := os.pread(file.fileno(), min(_CHUNK, end - at), at)):
                    hasher.update(data)
                    at += len(data)
                if digest and hasher.hexdigest() != digest:
                    raise VerifyError(
                        f"the image is not the one that `{self.name}` was made for: byte {start} to {end} differ",
                        hint="the download is damaged: fetch it again",
                    )


def beside(image: Path) -> Bmap | None:
    """The bmap of an image: `NAME.bmap`, without the image's suffixes or with them; None if there is none."""
    stem = image.with_suffix("") if image.suffix in _PACKED else image
    names = (stem.with_suffix(".bmap").name, f"{stem.name}.bmap", f"{image.name}.bmap")
    for path in map(image.with_name, names):
        if path.is_file():
            return read_bmap(path)
    return None


def read_bmap(path: Path) -> Bmap:
    """Read a bmap; raises `ImageError` for anything else, and for one whose own checksum is wrong."""
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX else b""
        # Entities can make a small file huge, and no bmap has them.
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ImageError(f"`{path.name}` is not a bmap file")
        root = ET.fromstring(data)  # noqa: S314 -- without entities there is nothing to expand
        found = _parsed(path.name, root)
        own = _field(root, "BmapFileChecksum")
    except (ET.ParseError, ValueError, OSError) as error:
        raise ImageError(f"`{path.name}` is not a bmap file") from error
    blank = data.replace(own.encode(), b"0" * len(own))
    if own and hashlib.new(found.algorithm, blank).hexdigest() != own:
        raise ImageError(f"`{path.name}` is damaged: its own checksum is wrong")
    return found


def _parsed(name: str, root: ET.Element) -> Bmap:
    block, size = int(_field(root, "BlockSize")), int(_field(root, "ImageSize"))
    algorithm = _field(root, "ChecksumType") or "sha256"
    ranges: list[Range] = []
    digests: list[str] = []
    for element in root.iter("Range"):
        first, _, last = (element.text or "").strip().partition("-")
        start, end = int(first) * block, (int(last or first) + 1) * block
        if not 0 <= start < end or start >= size or (ranges and start < sum(ranges[-1])):
            raise ValueError(f"range {first}-{last}")
        ranges.append((start, min(end, size) - start))
        digests.append((element.get("chksum") or "").lower())
    if root.tag != "bmap" or block <= 0 or algorithm not in hashlib.algorithms_guaranteed:
        raise ValueError(root.tag)
    return Bmap(name, size, algorithm, tuple(ranges), tuple(digests))


def _field(root: ET.Element, name: str) -> str:
    return (root.findtext(name) or "").strip()
