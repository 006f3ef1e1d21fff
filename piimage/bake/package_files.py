"""Package files in the cache, by sha256: `packages/SHA256/NAME`, looked at again before each use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.disk.atomic import require_space, sync
from piimage.disk.sparse import hash_file
from piimage.errors import VerifyError
from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from piimage.bake.lock import Package
    from piimage.bases.cache import Cache
    from piimage.progress import Progress

    Fetch = Callable[[Sequence[Package], Path], None]

_PLACE = "free some space, or set `PIIMAGE_CACHE` to a directory with some GiB free"


def ensure(
    packages: Sequence[Package], *, cache: Cache, fetch: Fetch, progress: Progress
) -> tuple[Path, ...]:
    """The files of `packages`, in their order; `fetch` brings those that are not here into a directory.

    Raises `VerifyError` when the archive's file is not the one of the lock, and what `fetch` raises; files that
    were good stay.
    """
    home = cache.directory("packages")
    with cache.lock("packages"):
        with progress.step("checking the package files"):
            missing = [package for package in packages if not _good(home, package)]
        if missing:
            require_space(home, sum(p.size for p in missing), hint=_PLACE)
            with cache.scratch() as scratch:
                try:
                    fetch(missing, scratch)
                finally:
                    wrong = [p for p in missing if not _take(p, scratch / p.file, home)]
            if wrong:
                raise VerifyError(
                    f"the archive's package {shown(wrong[0].name)} {wrong[0].version} is another file than the lock's",
                    hint="`piimage lock --update` takes the archive's present packages",
                )
        for package in packages:
            cache.used(_place(home, package).parent)
    return tuple(_place(home, package) for package in packages)


def _place(home: Path, package: Package) -> Path:
    return home / package.sha256 / package.file


def _good(home: Path, package: Package) -> bool:
    """Whether the cache has the very file; a damaged one goes."""
    path = _place(home, package)
    if not path.is_file():
        return False
    if path.stat().st_size == package.size and hash_file(path) == package.sha256:
        return True
    path.unlink()
    return False


def _take(package: Package, found: Path, home: Path) -> bool:
    """Move a downloaded file to its place if it is the right one."""
    if not found.is_file() or found.stat().st_size != package.size:
        return False
    if hash_file(found) != package.sha256:
        return False
    place = _place(home, package)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    found.chmod(0o644)
    sync(found)
    found.replace(place)
    return True
