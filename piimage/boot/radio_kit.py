"""The kit disk of a rehearsed access point: hostapd and a DHCP server for arm64, with their own libraries.

Fetched once by the host's apt from the archive that this machine uses, signatures checked, and made into a small
ext4 image. It is attached read-only to a node that is rehearsed, and its programs are started by their own loader:
nothing is installed in the guest, and no artifact ever holds any of it.
"""

from __future__ import annotations

import hashlib
import shutil
from importlib.resources import files
from typing import TYPE_CHECKING

from piimage.bake import host_archive
from piimage.bake.kernel import ARCHITECTURE, SUITE
from piimage.bases import archive
from piimage.errors import MissingToolError
from piimage.run import require, run

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.bases.cache import Cache
    from piimage.progress import Progress

#: busybox has the DHCP server.
_PACKAGES = ("hostapd", "iw", "busybox-static")
_TOOLS = ("apt-get", "dpkg-deb", "mke2fs")
#: Documents and translations, of which a rehearsal reads none.
_LEFT_OUT = ("usr/share", "etc", "var", "lib/systemd", "usr/lib/systemd")
#: What starts the access point in the guest; its text is part of the kit's identity.
START = "inside_access_point.sh"
IMAGE = "kit.img"
_MIB = 64


def ensure(cache: Cache, progress: Progress) -> Path:
    """The kit's image, made when it is used for the first time.

    Raises `MissingToolError` for what this machine lacks, `ToolFailedError` when the archive does not give it.
    """
    start = files("piimage.boot").joinpath(START).read_text(encoding="utf-8")
    sources = archive.sources(SUITE, "main")
    text = "\n".join([start, *_PACKAGES, *sources])
    place = (
        cache.root / "radio-kits" / f"{SUITE}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.img"
    )
    with cache.lock("radio-kits"):
        if place.is_file():
            return place
        require(*_TOOLS)
        if not sources:
            raise MissingToolError(
                "the apt of this machine knows no Debian archive to take an access point from",
                hint="this needs a Debian system as it is installed",
            )
        with (
            progress.step(f"fetching hostapd of Debian {SUITE} for the rehearsed access point"),
            cache.scratch() as scratch,
        ):
            tree = scratch / "tree"
            tree.mkdir()
            _unpack(sources, scratch / "apt", tree)
            (tree / "start").write_text(start, encoding="utf-8")
            image = scratch / IMAGE
            words = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
            run([*words, "-E", "root_owner=0:0", "-d", tree, image, f"{_MIB}M"])
            cache.directory("radio-kits")
            image.replace(place)
    return place


def _unpack(sources: list[str], root: Path, tree: Path) -> None:
    """The packages and all that they depend on, without what only people read."""
    env = host_archive.update(sources, root, ARCHITECTURE)
    run(["apt-get", "-q", "-y", "--download-only", "install", *_PACKAGES], env=env)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        run(["dpkg-deb", "--extract", package, tree])
    for name in _LEFT_OUT:
        shutil.rmtree(tree / name, ignore_errors=True)
