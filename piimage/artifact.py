"""What a build leaves in `dist/`: an image, its bmap, its checksums and a manifest.

Every file is published by rename. The checksum file goes first and comes back last: where it is
there, everything that it lists is there, complete and of one build.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from piimage.disk.atomic import (
    clean_partials,
    create,
    full_disk,
    partial_name,
    replacing,
    write_bytes,
    write_errors,
)
from piimage.disk.bmap import bmap_document, mapped_ranges
from piimage.disk.slots import Patch, apply_patches
from piimage.disk.sparse import allocated_bytes, copy_sparse, hash_file
from piimage.errors import ToolFailedError
from piimage.progress import Progress, Quiet
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from piimage.facts import PartitionTable

Format = Literal["img", "img.xz", "img.zst", "qcow2"]
FORMATS: tuple[str, ...] = get_args(Format)
#: Files that may hold a node's secrets: the owner's alone.
PRIVATE = 0o600
_COMPRESSORS = {
    "img.xz": ("xz", "-T0", "-3", "-c"),
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """Published files of one node or variant, and the sha256 of `image`."""

    image: Path
    bmap: Path
    checksums: Path
    sha256: str


def publish(
    source: Path,
    directory: Path,
    name: str,
    *,
    fmt: Format = "img",
    patches: Iterable[Patch] = (),
    table: PartitionTable | None = None,
    mode: int = PRIVATE,
    progress: Progress | None = None,
) -> Artifact:
    """Publish the raw image `source` with `patches` as `directory/NAME.FORMAT`, bmap and sha256.

    The source is not modified. Images of `name` in other formats are removed at the end: they are
    of an older build. Raises `WriteFailedError` when there is no room or the disk fails; then what
    was there before is still there, and no file of this build is there in part.
    """
    progress = progress or Quiet()
    prepare(directory)
    image, bmap = directory / f"{name}.{fmt}", directory / f"{name}.bmap"
    checksums = directory / f"{name}.sha256"
    with _scratch_copy(source, directory / f"{name}.raw", patches, mode, progress) as raw:
        document = bmap_document(raw, table=table, progress=progress)
        with replacing(image, mode=mode, needed=allocated_bytes(raw)) as partial:
            if fmt == "img":
                raw.replace(partial)
            else:
                _encode(raw, partial, fmt, table, progress)
            digest = hash_file(partial, progress=progress)
            checksums.unlink(missing_ok=True)
    write_bytes(bmap, document, mode=mode)
    for other in FORMATS:
        if other != fmt:
            (directory / f"{name}.{other}").unlink(missing_ok=True)
    lines = f"{digest}  {image.name}\n{hash_file(bmap)}  {bmap.name}\n"
    write_bytes(checksums, lines.encode(), mode=mode)
    return Artifact(image, bmap, checksums, digest)


def tools(fmt: Format | None) -> tuple[str, ...]:
    """The programs that publishing in this format starts."""
    if fmt == "qcow2":
        return ("qemu-img",)
    return _COMPRESSORS[fmt][:1] if fmt in _COMPRESSORS else ()


def write_manifest(directory: Path, manifest: Mapping[str, Any], *, mode: int = 0o644) -> Path:
    """Write `directory/manifest.json`, keys sorted; the caller has put no secret into it."""
    path = directory / "manifest.json"
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(), mode=mode)
    return path


def prepare(directory: Path) -> None:
    """Make the directory, and remove what dead builds left half-written in it."""
    with write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        clean_partials(directory)


@contextmanager
def _scratch_copy(
    source: Path, path: Path, patches: Iterable[Patch], mode: int, progress: Progress
) -> Iterator[Path]:
    """A patched copy of `source` under a partial name, removed unless it was renamed."""
    partial = partial_name(path)
    with write_errors(path, allocated_bytes(source)):
        try:
            create(partial, mode)
            copy_sparse(source, partial, progress)
            apply_patches(partial, patches)
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def _encode(
    raw: Path, target: Path, fmt: Format, table: PartitionTable | None, progress: Progress
) -> None:
    """Write `raw` in another format to `target`."""
    with progress.step(f"compressing to {fmt}") as task:
        if fmt == "img.zst":
            from piimage.disk.framing import pack  # noqa: PLC0415 -- start-up time

            pack(raw, target, mapped_ranges(raw, table), task)
            return
        try:
            if fmt == "qcow2":
                names = (raw.absolute(), target.absolute())
                run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *names])
                return
            with raw.open("rb") as source, target.open("wb") as sink:
                run(_COMPRESSORS[fmt], stdin=source, stdout=sink)
        except ToolFailedError as error:
            if full_disk(error.message):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
