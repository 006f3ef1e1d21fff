"""The firmware partition: listing, reading, and writes as sector patches that mtools worked out.

mtools never sees the image. It works on a sparse scratch file that holds the boot area, the FATs
and the directories, and what it changed there becomes patches: so a hostile image meets no writer,
nothing is written that was not planned, and a write costs milliseconds.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from piimage.disk.fat_reader import Fat
from piimage.disk.slots import Patch, apply_patches
from piimage.disk.window import joined, window
from piimage.errors import ImageError, ToolFailedError
from piimage.facts import FileFact
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from piimage.disk.window import Image

#: Files over this size are left out by `read_files` unless it is told otherwise.
DEFAULT_LIMIT = 64 << 20
#: The date of files that we write, so that equal input gives equal sectors: 2020-01-01.
DEFAULT_EPOCH = 1577836800
_SECTOR = 512
_ENVIRONMENT = {"TZ": "UTC", "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": os.devnull}
_FORBIDDEN = frozenset('"*:<>?\\|') | {chr(code) for code in range(32)} | {"\x7f"}


@contextmanager
def open_fat(image: Path | Image, offset: int, patches: Sequence[Patch] = ()) -> Iterator[Fat]:
    """Open the FAT at byte `offset` of `image`, as it is or as `patches` would make it.

    Raises `ImageError` if there is none.
    """
    with window(image, offset, patches) as source:
        yield Fat(source)


def list_tree(image: Path, offset: int, *, patches: Sequence[Patch] = ()) -> dict[str, FileFact]:
    """Every path (from `/`) as a kernel with default options shows it: root's, mode 0755."""
    with open_fat(image, offset, patches) as fat:
        kinds = {path: "dir" if entry.directory else "file" for path, entry in fat.walk()}
    return {path: FileFact(kind=k, mode=0o755, uid=0, gid=0) for path, k in kinds.items()}


def read_files(
    image: Path,
    offset: int,
    paths: Iterable[str],
    *,
    limit: int = DEFAULT_LIMIT,
    patches: Sequence[Patch] = (),
) -> dict[str, bytes]:
    """Content by path; case does not matter, the answer has the paths as asked.

    Left out: what does not exist, is no file, or is larger than `limit` bytes.
    """
    found = {}
    with open_fat(image, offset, patches) as fat:
        for path in paths:
            entry = fat.find(path)
            if entry is not None and not entry.directory and entry.size <= limit:
                found[path] = fat.content(entry)
    return found


def allocated(image: Path | Image, offset: int) -> list[tuple[int, int]]:
    """`(image offset, length)` in bytes of all that is in use: boot area, FATs, clusters."""
    with open_fat(image, offset) as fat:
        return [(offset + start, length) for start, length in fat.allocated()]


def stage(image: Path, offset: int, writes: Mapping[str, bytes]) -> list[Patch]:
    """Patches that writing `{path: content}` would make; the image is not touched.

    Missing directories are made, existing files replaced, equal ones left alone. Equal input gives
    equal patches. Raises `ImageError` for a name that FAT cannot hold or when there is no room.
    """
    for path in writes:
        _check_name(path)
    with open_fat(image, offset) as fat, tempfile.TemporaryDirectory(prefix="piimage-") as scratch:
        changed = {p: c for p, c in sorted(writes.items()) if not _holds(fat, p, c)}
        if not changed:
            return []
        volume = Path(scratch, "volume")
        metadata = _metadata(fat, [str(PurePosixPath("/", p).parent) for p in changed])
        _copy(fat, metadata, volume)
        _write_with_mtools(fat, volume, Path(scratch), changed)
        with open_fat(volume, 0) as after:
            places = joined(metadata + _written(after, changed))
            return [
                Patch(offset + at, data)
                for start, length in places
                for at, data in _differences(fat, after, start, length)
            ]


def write_files(image: Path, offset: int, writes: Mapping[str, bytes]) -> None:
    """Write `{path: content}` in place: `stage`, then the patches."""
    apply_patches(image, stage(image, offset, writes))


def remove_files(image: Path, offset: int, paths: Iterable[str]) -> None:
    """Remove files in place; `image` is a scratch copy of ours, on which mtools works itself."""
    for path in paths:
        _check_name(path)
        _mtool(["mdel", "-i", f"{image}@@{offset}", f"::{path}"], _ENVIRONMENT)


def check(image: Path, offset: int) -> None:
    """Let `fsck.fat -n` judge the file system; raises `ImageError` with its words unless clean."""
    with open_fat(image, offset) as fat, tempfile.TemporaryDirectory(prefix="piimage-") as scratch:
        volume = Path(scratch, "volume")
        everywhere = ["/"] + [path for path, entry in fat.walk() if entry.directory]
        _copy(fat, _metadata(fat, everywhere), volume)
        result = run(["fsck.fat", "-n", volume], check=False)
    if result.returncode != 0:
        said = [line for line in result.text.splitlines() if line.strip()][-8:]
        own = ("fsck.fat ", f"{volume}: ")  # its version, and how full the volume is
        words = "".join(f"\n    {line}" for line in said if not line.startswith(own))
        raise ImageError(
            f"the FAT file system at byte {offset} of `{image.name}` is not clean{words}"
        )


def _check_name(path: str) -> None:
    for part in path.strip("/").split("/"):
        if part in ("", ".", "..") or set(part) & _FORBIDDEN or part[-1] in " .":
            raise ImageError(f"`{path}` is not a name that a FAT file system can hold")


def _holds(fat: Fat, path: str, content: bytes) -> bool:
    entry = fat.find(path)
    if entry is not None and entry.directory:
        raise ImageError(f"`{path}` is a directory on the firmware partition")
    return entry is not None and entry.size == len(content) and fat.content(entry) == content


def _metadata(fat: Fat, directories: Iterable[str]) -> list[tuple[int, int]]:
    """Places of boot area, FATs, and every directory on the way to `directories`."""
    places = [(0, fat.data_start)]
    wanted = {"/"}
    for directory in directories:
        wanted |= {
            str(parent) for parent in (PurePosixPath(directory), *PurePosixPath(directory).parents)
        }
    for path in wanted:
        entry = fat.find(path)
        if entry is not None and entry.directory:
            places += fat.directory_places(entry.cluster)
    return joined(places)


def _copy(fat: Fat, places: Iterable[tuple[int, int]], volume: Path) -> None:
    with volume.open("wb") as file:
        file.truncate(fat.size)
        for start, length in places:
            os.pwrite(file.fileno(), fat.source.read(start, length), start)


def _write_with_mtools(fat: Fat, volume: Path, scratch: Path, writes: Mapping[str, bytes]) -> None:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", str(DEFAULT_EPOCH))
    env = {**_ENVIRONMENT, "SOURCE_DATE_EPOCH": epoch}
    made: set[str] = set()
    groups: dict[str, list[Path]] = {}
    for number, (path, content) in enumerate(writes.items()):
        directory, _, name = path.strip("/").rpartition("/")
        source = scratch / str(number) / name
        source.parent.mkdir()
        source.write_bytes(content)
        groups.setdefault(directory, []).append(source)
    for directory, sources in groups.items():
        parts = directory.split("/") if directory else []
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            if parent.casefold() not in made and fat.find(parent) is None:
                made.add(parent.casefold())
                _mtool(["mmd", "-i", volume, f"::/{parent}"], env)
        _mtool(["mcopy", "-o", "-i", volume, *sources, f"::/{directory}"], env)


def _mtool(argv: list[str | Path], env: Mapping[str, str]) -> None:
    try:
        run(argv, env=env)
    except ToolFailedError as error:
        if "disk full" in error.message.lower():
            raise ImageError("the firmware partition has no room for its files") from error
        raise


def _written(after: Fat, writes: Iterable[str]) -> list[tuple[int, int]]:
    """Places of what mtools wrote besides metadata: the files, and directories that grew."""
    places: list[tuple[int, int]] = []
    for path in writes:
        entry = after.find(path)
        if entry is None or entry.directory:
            raise ImageError(f"`{path}` could not be written to the firmware partition")
        places += [
            (after.position(cluster), after.cluster) for cluster in after.chain(entry.cluster)
        ]
    parents = [str(PurePosixPath("/", path).parent) for path in writes]
    return places + _metadata(after, parents)


def _differences(fat: Fat, after: Fat, start: int, length: int) -> Iterator[tuple[int, bytes]]:
    """Runs of sectors of a place that differ, as `(offset, new bytes)`."""
    old, new = fat.source.read(start, length), after.source.read(start, length)
    run_start: int | None = None
    for at in range(0, length, _SECTOR):
        if old[at : at + _SECTOR] != new[at : at + _SECTOR]:
            run_start = at if run_start is None else run_start
        elif run_start is not None:
            yield start + run_start, new[run_start:at]
            run_start = None
    if run_start is not None:
        yield start + run_start, new[run_start:length]
