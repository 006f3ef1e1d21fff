"""What a rehearsal starts from: a node's full image, or a variant and the stamp that makes it this node."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage import stamping
from piimage.errors import ImageError, PiimageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from piimage.cluster import Node
    from piimage.disk.slots import Patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The raw `image`, which is only read, under `patches`; `build` is None when nothing says which it is."""

    image: Path
    build: str | None
    stamp: Path | None = None
    patches: tuple[Patch, ...] = field(default=(), repr=False)


def manifest(output: Path) -> dict[str, Any]:
    """What `output` says that it holds; empty lists where it says nothing readable."""
    nothing: dict[str, Any] = {"nodes": {}, "variants": {}}
    try:
        found = json.loads((output / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return nothing
    return {**nothing, **found} if isinstance(found, dict) else nothing


def candidates(output: Path, node: Node) -> list[Disk]:
    """What was built of `node`: the full image first, then variant and stamp.

    Raises `PiimageError` when there is neither, and `ImageError` for a stamp without its variant.
    """
    known = manifest(output)
    found = []
    image = output / f"{node.name}.img"
    if image.is_file():
        found.append(Disk(image=image, build=known["nodes"].get(node.name, {}).get("img")))
    stamp = output / "stamps" / f"{node.name}.stamp"
    if stamp.is_file():
        found += _stamped(stamp, output, known["variants"], required=not found)
    if not found:
        raise PiimageError(
            f"there is no image `{image}`, and no stamp in `{stamp.parent}`",
            hint=f"`piimage build --node {node.number}` makes it, `piimage build --all` stamps for all nodes",
        )
    return found


def _stamped(stamp: Path, output: Path, variants: dict[str, Any], *, required: bool) -> list[Disk]:
    made = stamping.read_stamp(stamp)
    for entry in variants.values():
        image = output / str(entry.get("image"))
        if entry.get("id") == made.variant and image.is_file():
            return [Disk(image=image, build=made.build, stamp=stamp, patches=made.patches)]
    if required:
        raise ImageError(
            f"`{stamp}` belongs to a variant that `{output}` does not hold",
            hint="`piimage build --all` makes both anew",
        )
    return []


def choose(found: Sequence[Disk], build: str) -> Disk:
    """The first that is of `build`, else simply the first: better an old image than none."""
    return next((disk for disk in found if disk.build == build), found[0])
