"""What a build left of a node: its manifest, the files that the manifest vouches for, their checksums."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from piimage.artifact import FORMATS
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def read_manifest(directory: Path) -> Mapping[str, Any]:
    """The manifest of the build in `directory`; raises `PiimageError` if there is none, or it is none."""
    path = directory / "manifest.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PiimageError(
            f"nothing was built in `{directory}`", hint="`piimage build --all` builds all nodes"
        ) from None
    except (OSError, ValueError) as error:
        raise PiimageError(f"cannot read `{path}`: {error}") from error
    if not isinstance(found, dict):
        raise PiimageError(f"`{path}` is not the manifest of a build")
    return {"variants": {}, "nodes": {}, **found}


def artifacts(
    directory: Path, node: str, known: Mapping[str, Any], variants: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Each kind of artifact of the node that the manifest vouches for and that is there."""
    stamp = directory / "stamps" / f"{node}.stamp"
    image = next(
        (directory / v["image"] for v in variants.values() if v.get("id") == known.get("variant")),
        None,
    )
    if "stamp" in known and image is not None and stamp.is_file() and image.is_file():
        yield "stamp", (stamp, image)
    for kind in FORMATS:
        path = directory / f"{node}.{kind}"
        if kind in known and path.is_file():
            yield kind, (path,)


def listed(checksums: Path, name: str) -> str | None:
    """The sha256 of `name` in a file as `sha256sum` writes it."""
    try:
        lines = checksums.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PiimageError(
            f"`{checksums}` is not there: the build of `{name}` did not end",
            hint="build it again",
        ) from error
    return next((line.split()[0] for line in lines if line.split()[1:] == [name]), None)
