"""Lists of images that publishers keep themselves: Raspberry Pi's, in format 4 of its Imager.

Source of the format: rpi-imager, doc/json-schema/os-list-schema.json. What a list says is used as a list of
names, addresses and digests; who may sign an image stays with the profile.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from piimage.bases.cache import cache_root
from piimage.bases.naming import name_after
from piimage.bases.publishers import file_name, published
from piimage.disk.atomic import write_bytes
from piimage.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from piimage.bases.cache import Cache
    from piimage.bases.publishers import Published, Publisher
    from piimage.progress import Progress

#: Raspberry Pi's list has some hundred KiB; one of these is an attack.
_LARGEST = 8 << 20
_MAX_DEPTH, _MAX_LISTS = 8, 16
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_OFFLINE = "`piimage base list` shows what was known before"


def refresh(publishers: Iterable[Publisher], cache: Cache, progress: Progress) -> int:
    """Ask every publisher that keeps a list for it, keep what it says, and return how many images that is.

    Lists that a list names are asked for too, from the same host. Raises `FetchError`, and then keeps what
    was known before.
    """
    count = 0
    for publisher in publishers:
        if publisher.list_url:
            with progress.step(f"asking {publisher.title} for its list of images"):
                items = _fetched(publisher.list_url)
            found = parse(publisher, items)
            if not found:
                raise FetchError(
                    f"the list of {publisher.title} names no image of its own", hint=_OFFLINE
                )
            data = json.dumps({"os_list": items}).encode()
            write_bytes(cache.directory("lists") / f"{publisher.name}.json", data, mode=0o600)
            count += len(found)
    return count


def kept(publishers: Iterable[Publisher]) -> dict[str, Published]:
    """Images of the lists that were asked for last, by name; a damaged list counts as none."""
    found: dict[str, Published] = {}
    for publisher in publishers:
        if publisher.list_url:
            try:
                found |= parse(publisher, _items((_place(publisher)).read_bytes()))
            except (OSError, ValueError):
                continue
    return found


def parse(publisher: Publisher, items: list[Any]) -> dict[str, Published]:
    """Images that lie on the publisher's own host, named after their files; others are other people's.

    `image_download_sha256` may be absent or empty, as it is in Raspberry Pi's own list.
    """
    host = urlsplit(publisher.list_url).netloc
    found: dict[str, Published] = {}
    for item in _images(items):
        url = item["url"]
        if urlsplit(url).netloc != host or any(c.isspace() for c in url):
            continue
        values: dict[str, Any] = {
            "description": _described(item),
            "sha256": _digest(item.get("image_download_sha256")),
            "image_sha256": _digest(item.get("extract_sha256")),
            "size": _size(item.get("image_download_size")),
            "image_size": _size(item.get("extract_size")),
        }
        found[name_after(file_name(url))] = published(publisher, url, values, pinned=False)
    return found


def _place(publisher: Publisher) -> Path:
    return cache_root() / "lists" / f"{publisher.name}.json"


def _items(data: bytes) -> list[Any]:
    """The top of a list; raises `ValueError` for anything else."""
    document = json.loads(data)
    items = document.get("os_list") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise ValueError("it has no `os_list`")  # noqa: TRY004 -- what reads JSON raises this one
    return items


def _images(items: object, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every item with an address, however deep."""
    for item in items if isinstance(items, list) and depth < _MAX_DEPTH else ():
        if isinstance(item, dict):
            if isinstance(item.get("url"), str):
                yield item
            yield from _images(item.get("subitems"), depth + 1)


def _fetched(url: str) -> list[Any]:
    """A list with all lists that it names on the same host in the place of their addresses."""
    left = _MAX_LISTS

    def fill(items: list[Any], depth: int) -> list[Any]:
        nonlocal left
        for item in items if depth < _MAX_DEPTH else ():
            if not isinstance(item, dict):
                continue
            inner = item.pop("subitems_url", None)
            if isinstance(inner, str) and urlsplit(inner).netloc == urlsplit(url).netloc and left:
                left -= 1
                item["subitems"] = fill(_read(inner), depth + 1)
            elif isinstance(item.get("subitems"), list):
                fill(item["subitems"], depth + 1)
        return items

    return fill(_read(url), 0)


def _read(url: str) -> list[Any]:
    from piimage.web import read_bytes  # noqa: PLC0415 -- start-up time

    data = read_bytes(url, hint=_OFFLINE, largest=_LARGEST)
    if data is None:
        raise FetchError(f"there is no list of images at {url}", hint=_OFFLINE)
    try:
        return _items(data)
    except ValueError as error:
        raise FetchError(f"{url} is no list of images: {error}", hint=_OFFLINE) from error


def _described(item: dict[str, Any]) -> str:
    """Title, date and kind of first boot, as far as the item has them."""
    words = [item.get("name"), item.get("release_date"), item.get("init_format")]
    return ", ".join(word for word in words if isinstance(word, str) and word)


def _digest(value: object) -> str | None:
    text = value if isinstance(value, str) else ""
    return text.lower() if _SHA256.fullmatch(text) else None


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
