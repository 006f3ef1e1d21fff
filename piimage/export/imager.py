"""Raspberry Pi Imager's list of operating systems, with the card images of a cluster as its entries.

The format is version 4 of `os_list_imagingutility`, as Imager 2 reads it (raspberrypi/rpi-imager,
doc/json-schema/os-list-schema.json).
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from piimage.disk.streams import open_image
from piimage.errors import ImageError, PiimageError

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.cluster import Cluster, Node
    from piimage.progress import Progress

#: What Imager can unpack; it does not know qcow2.
_SUFFIXES = ("img", "img.xz", "img.zst")
_CHUNK = 1 << 20
#: One of Imager's own pictures: the list must name one, and must not need the network.
_ICON = "icons/use_custom.png"
#: Imager's word for the boards that it lets choose, and our boards that each stands for.
_DEVICES: tuple[tuple[str, str, str, frozenset[str]], ...] = (
    ("Raspberry Pi 5", "pi5-64bit", "5, 500, Compute Module 5", frozenset({"pi5", "cm5"})),
    (
        "Raspberry Pi 4",
        "pi4-64bit",
        "4 Model B, 400, Compute Module 4",
        frozenset({"pi4", "pi400", "cm4", "cm4-lan"}),
    ),
    (
        "Raspberry Pi 3",
        "pi3-64bit",
        "3, Zero 2 W, Compute Module 3",
        frozenset({"pi3", "cm3", "pi2"}),
    ),
)


def manifest(cluster: Cluster, output: Path, progress: Progress) -> str:
    """JSON with an entry for each node whose image lies in `output`.

    Raises `PiimageError` when there is none, and `ImageError` for an image that is damaged.
    """
    found = images(cluster, output)
    if not found:
        raise PiimageError(
            f"there are no card images in `{output}` that Raspberry Pi Imager reads",
            hint="`piimage build --all --format img` builds one for each node",
        )
    entries = []
    for node, image in found.items():
        with progress.step(f"hashing {image.name}"):
            entries.append(_entry(cluster, node, image))
    missing = [node.name for node in cluster.nodes if node not in found]
    if missing:
        progress.warn(f"no card image of {', '.join(missing)}: not in the list")
    devices = [
        {"name": name, "description": words, "tags": [tag], "matching_type": "exclusive"}
        for name, tag, words, _ in _DEVICES
    ]
    every = {
        "name": "Any board",
        "description": f"all nodes of {cluster.name}",
        "tags": [],
        "matching_type": "inclusive",
        "default": True,
    }
    found_list = {"imager": {"devices": [every, *devices]}, "os_list": entries}
    return json.dumps(found_list, indent=2, ensure_ascii=False) + "\n"


def images(cluster: Cluster, output: Path) -> dict[Node, Path]:
    """The card images in `output`; of a node there is one in one format only."""
    found = {}
    for node in cluster.nodes:
        paths = (output / f"{node.name}.{suffix}" for suffix in _SUFFIXES)
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found[node] = path
    return found


def _entry(cluster: Cluster, node: Node, image: Path) -> dict[str, Any]:
    """One card. `init_format: none` keeps Imager from customising what is finished."""
    try:
        state = image.stat()
        size, digest = _raw(image)
        packed = _digest(image) if image.suffix != ".img" else digest
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise ImageError(f"cannot read `{image}`: {words}") from error
    url = image.absolute().as_uri()
    bmap = image.with_name(f"{node.name}.bmap")
    board = f", {node.board}" if node.board else ""
    return {
        "name": f"{cluster.name} {node.name}",
        "description": f"Card of node {node.number} ({node.role.name}{board}), {node.address.ip}",
        "icon": _ICON,
        "url": url,
        "extract_size": size,
        "extract_sha256": digest,
        "image_download_size": state.st_size,
        "image_download_sha256": packed,
        "release_date": datetime.fromtimestamp(state.st_mtime, UTC).date().isoformat(),
        "devices": [
            tag for _, tag, _, boards in _DEVICES if node.board is None or node.board in boards
        ],
        "init_format": "none",
        "architecture": "armv8",
        **({"bmap_url": bmap.absolute().as_uri()} if bmap.is_file() else {}),
    }


def _raw(image: Path) -> tuple[int, str]:
    """Bytes and sha256 of what gets onto a card."""
    size, digest = 0, hashlib.sha256()
    with open_image(image) as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
