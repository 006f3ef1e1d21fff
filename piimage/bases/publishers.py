"""Who publishes images, under which keys, and where: `profiles/images/*.yaml`, one file per publisher."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from piimage.bases.cache import check_name
from piimage.errors import ConfigError, PiimageError
from piimage.report import Severity, shown
from piimage.spec import source
from piimage.spec.data import data_dirs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.report import Diagnostic
    from piimage.spec.place import FieldPath

#: `signature:` of a list of digests that is signed in itself (RFC 9580, section 7).
INLINE = "inline"
_ADDRESS = re.compile(r"https?://[^\s/]+/\S+")
_TEXT = re.compile(r"[^\x00-\x1f]+")
_TEXT_OR_NONE = re.compile(r"[^\x00-\x1f]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Version 4 and version 6 fingerprints (RFC 9580, section 5.5.4).
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_SIGNED = {"sums": _TEXT_OR_NONE, "signature": _TEXT_OR_NONE}
_OF_PUBLISHER = {"publisher": _TEXT, "key_url": _ADDRESS, "list": _ADDRESS, **_SIGNED}
_OF_IMAGE = {
    "description": _TEXT,
    "url": _ADDRESS,
    "sha256": _SHA256,
    "image_sha256": _SHA256,
    "size": int,
    "image_size": int,
    **_SIGNED,
}
_WANTED = {
    _ADDRESS: "an address that begins with `https://`",
    _TEXT: "text",
    _TEXT_OR_NONE: 'text, or `""` for none',
    _SHA256: "64 hex digits in lower case",
    _FINGERPRINT: "a list of fingerprints, 40 or 64 hex digits in upper case",
    int: "a number of bytes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Who signs: `name` is of the profile's file, `keys` are fingerprints of primary keys.

    `keyrings` are files that may hold those keys where a package brought them, `key_url` is where people
    find them, `list_url` a list of images that is newer than the profile ("" for none).
    """

    name: str
    title: str
    keys: tuple[str, ...] = ()
    keyrings: tuple[Path, ...] = ()
    key_url: str = ""
    list_url: str = ""
    sums: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An image at `url`: sizes in bytes, `sha256` of the file there, `image_sha256` of the raw image in it.

    `sums` is the address of a list of digests, `signature` that of an OpenPGP signature over it, or over the
    image where there is no list; `INLINE` when the list is signed in itself. "" for none.
    `pinned` when the digest stands in a profile.
    """

    publisher: Publisher
    url: str
    description: str = ""
    sums: str = ""
    signature: str = ""
    sha256: str | None = None
    size: int | None = None
    image_sha256: str | None = None
    image_size: int | None = None
    pinned: bool = False

    @property
    def file(self) -> str:
        """The name of the file at `url`, with `%2B` and the like resolved."""
        return file_name(self.url)


def file_name(url: str) -> str:
    """The last part of an address's path, resolved; never empty, never hidden, never a path."""
    return unquote(urlsplit(url).path).rpartition("/")[2].lstrip(".") or "image"


def published(
    publisher: Publisher, url: str, values: Mapping[str, Any], *, pinned: bool
) -> Published:
    """An image of a publisher's; what `values` says of digests and sizes goes in, `{file}` is filled."""

    def address(field: str, default: str) -> str:
        text = str(values.get(field, default))
        if field == "signature" and text == INLINE:
            return text
        # The name as it stands in the address: `+` and `%2B` are not the same there.
        return text and urljoin(url, text.replace("{file}", url.rpartition("/")[2]))

    return Published(
        publisher=publisher,
        url=url,
        description=values.get("description", ""),
        sums=address("sums", publisher.sums),
        signature=address("signature", publisher.signature),
        sha256=values.get("sha256"),
        size=values.get("size"),
        image_sha256=values.get("image_sha256"),
        image_size=values.get("image_size"),
        pinned=pinned and "sha256" in values,
    )


def read_all(beside: Path | None = None) -> tuple[dict[str, Publisher], dict[str, Published]]:
    """All publishers, and all images of their profiles, by name.

    A file beside cluster.yaml goes before one of the same name that ships. Raises `ConfigError` with every
    mistake of the first file that has any.
    """
    files: dict[str, Path] = {}
    for directory in reversed(data_dirs("profiles", beside)):
        files |= {path.stem: path for path in sorted((directory / "images").glob("*.yaml"))}
    publishers: dict[str, Publisher] = {}
    images: dict[str, Published] = {}
    for name, path in sorted(files.items()):
        publishers[name], found = _Reader(source.read(path), path).read()
        images |= found
    return publishers, images


class _Reader:
    """One profile, with all of its mistakes."""

    def __init__(self, document: source.Document, path: Path) -> None:
        self.document, self.path = document, path
        self.problems: list[Diagnostic] = list(document.problems)

    def read(self) -> tuple[Publisher, dict[str, Published]]:
        data = self.document.data
        values = self.fields(
            data, (), _OF_PUBLISHER, ("keys", "keyrings", "images"), ("publisher",)
        )
        publisher = Publisher(
            name=self.path.stem,
            title=values.get("publisher", ""),
            keys=self.texts("keys", _FINGERPRINT),
            keyrings=tuple(self.path.parent / text for text in self.texts("keyrings", _TEXT)),
            key_url=values.get("key_url", ""),
            list_url=values.get("list", ""),
            sums=values.get("sums", ""),
            signature=values.get("signature", ""),
        )
        images = data.get("images", {})
        if not isinstance(images, dict):
            self.refuse(("images",), "`images` must hold one image under each name")
            images = {}
        found = {name: self.image(name, value, publisher) for name, value in images.items()}
        if self.problems:
            raise ConfigError(
                f"{self.document.file} is not a valid profile", diagnostics=self.problems
            )
        return publisher, found

    def image(self, name: str, value: object, publisher: Publisher) -> Published:
        path: FieldPath = ("images", name)
        try:
            check_name(name)
        except PiimageError as error:
            self.refuse(path, error.message)
        if not isinstance(value, dict):
            self.refuse(path, "an image has at least `url`")
            value = {}
        values = self.fields(value, path, _OF_IMAGE, (), ("url",))
        image = published(publisher, values.get("url", ""), values, pinned=True)
        if image.signature and not publisher.keys:
            self.refuse(
                path, "a `signature` is of no use without `keys`: fingerprints of who may sign"
            )
        if image.signature == INLINE and not image.sums:
            self.refuse(path, f"`signature: {INLINE}` is for `sums`, and there are none")
        return image

    def fields(
        self,
        data: Mapping[str, object],
        at: FieldPath,
        kinds: Mapping[str, Any],
        others: tuple[str, ...],
        needed: tuple[str, ...],
    ) -> dict[str, Any]:
        """Fields of the right kind; all else is a problem."""
        for field in needed:
            if field not in data:
                self.refuse(at, f"`{field}` is missing")
        values: dict[str, Any] = {}
        for field, value in data.items():
            if field in kinds:
                if _fits(value, kinds[field]):
                    values[field] = value
                else:
                    self.refuse((*at, field), f"`{field}` must be {_WANTED[kinds[field]]}")
            elif field not in others:
                allowed = ", ".join(f"`{word}`" for word in (*kinds, *others))
                self.refuse((*at, field), f"{shown(field)} is not a field here: {allowed}")
        return values

    def texts(self, field: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        value = self.document.data.get(field, [])
        if not isinstance(value, list) or not all(_fits(item, pattern) for item in value):
            wanted = "a list of files" if pattern is _TEXT else _WANTED[pattern]
            self.refuse((field,), f"`{field}` must be {wanted}")
            return ()
        return tuple(value)

    def refuse(self, path: FieldPath, message: str) -> None:
        self.problems.append(
            self.document.diagnostic(Severity.ERROR, path, message, code="profile")
        )


def _fits(value: object, kind: object) -> bool:
    if isinstance(kind, re.Pattern):
        return isinstance(value, str) and kind.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
