"""`piimage base make`: a base from nothing but a package archive."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from piimage.bases import catalog, debian, namespace
from piimage.bases.record import Origin
from piimage.disk.atomic import require_space
from piimage.errors import PiimageError
from piimage.run import require, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.progress import Progress

_TOOLS = ("mmdebstrap", "arch-test", "mke2fs", "mkfs.vfat", "mcopy", "sfdisk", "zstd")
#: Tree, packages and image exist side by side for a while.
_ROOM = 4 << 30
_PLACE = "free some space, or set `PIIMAGE_CACHE` to a directory with some GiB free"


def make(name: str, *, store: Store, progress: Progress, force: bool = False) -> Base:
    """Make the base `name` of the catalog, unless it is here already; `force` makes it anew.

    Raises `PiimageError` for a name that cannot be made, `MissingToolError` before any work is done, and
    `ToolFailedError` when a step fails; the store is then as it was.
    """
    entry = catalog.entries().get(name)
    if entry is None or entry.obtain != "make":
        raise PiimageError(f"`{name}` is not a base that can be made", hint=catalog.cure(name, ()))
    suite = entry.suite
    with store.in_use(), store.lock(f"make-{name}"):
        if not force and store.record(name) is not None:
            progress.say(f"base `{name}` is here already; `--force` makes it anew")
            return store.base(name)
        require(*_TOOLS, *namespace.tools())
        require_space(store.directory("bases"), _ROOM, hint=_PLACE)
        with progress.step(f"making base `{name}`"), _workshop(store) as scratch:
            tree = debian.build_tree(suite, scratch / "tree", cache=store, progress=progress)
            image = scratch / "image.img"
            debian.build_image(tree, image, progress=progress)
            origin = Origin.now("made", f"Debian {suite} package archive")
            return store.publish(name, image, origin=origin, tools=_versions())


@contextmanager
def _workshop(store: Store) -> Iterator[Path]:
    """A scratch directory whose tree is removed by whoever owns it: an ordinary user's tree has other users' files."""
    with store.scratch() as scratch:
        (scratch / "tree").mkdir()
        try:
            yield scratch
        finally:
            run([*namespace.prefix(), "rm", "-rf", scratch / "tree"], check=False)


def _versions() -> dict[str, str]:
    """Versions of what decides the bytes of the image."""
    mke2fs = run(["mke2fs", "-V"], check=False).stderr.decode(errors="replace").split()
    return {
        "mmdebstrap": run(["mmdebstrap", "--version"]).text.split()[-1],
        "mke2fs": mke2fs[1] if len(mke2fs) > 1 else "",
    }
