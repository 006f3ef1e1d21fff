"""The kernel of machines of our own: Debian's for arm64 with all its modules, and a static busybox to go with it.

Fetched once by the host's apt from the archive that this machine uses, signatures checked, and unpacked. No privilege
is needed and nothing of it is run here. It has what a Raspberry Pi's own lacks (virtio), or has as a module
(nfsd, autofs4, mac80211_hwsim).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from piimage.bake import host_archive
from piimage.bases import archive
from piimage.errors import MissingToolError, ToolFailedError
from piimage.run import require, run

if TYPE_CHECKING:
    from piimage.bases.cache import Cache
    from piimage.progress import Progress

#: The default base's release.
SUITE = "trixie"
ARCHITECTURE = "arm64"
_KERNEL, _BUSYBOX = "linux-image-arm64", "busybox-static"
_TOOLS = ("apt-get", "dpkg-deb", "depmod")
_RECORD = "kernel.json"
#: Part of the name in the cache: another number, another content.
_VERSION = 1
_REAL = re.compile(r"\blinux-image-[0-9][^\s,(|]*")
_VMLINUZ = re.compile(r"boot/vmlinuz-(?P<version>.+)")
_MODULES = re.compile(r"(?:usr/)?(?P<path>lib/modules/[^/]+/.+)")
_BIN = re.compile(r"(?:usr/)?bin/busybox")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """`version` as of `uname -r`; `image` an uncompressed Image; `modules` its directory with depmod's indices.

    `busybox` is a static arm64 program. `packages` maps names of packages to versions.
    """

    version: str
    image: Path
    modules: Path
    busybox: Path
    packages: dict[str, str]


def present(cache: Cache, suite: str = SUITE) -> Kernel | None:
    """The kernel if it is in the cache."""
    return _open(_place(cache, suite))


def ensure(cache: Cache, progress: Progress, suite: str = SUITE) -> Kernel:
    """The kernel, fetched when it is used for the first time.

    Raises `MissingToolError` for what this machine lacks, `ToolFailedError` when the archive does not give it.
    """
    place = _place(cache, suite)
    with cache.lock("kernels"):
        found = _open(place)
        if found is not None:
            return found
        require(*_TOOLS)
        sources = archive.sources(suite, "main")
        if not sources:
            raise MissingToolError(
                "the apt of this machine knows no Debian archive to take an arm64 kernel from",
                hint="this needs a Debian system as it is installed",
            )
        with (
            progress.step(f"fetching the arm64 kernel of Debian {suite} for our own machines"),
            cache.scratch() as scratch,
        ):
            packages = _fetch(sources, scratch / "apt")
            home = scratch / "kernel"
            record = _unpack(packages, home)
            (home / _RECORD).write_text(json.dumps(record), encoding="utf-8")
            cache.directory("kernels")
            if place.exists():  # damaged
                place.rename(scratch / "old")
            home.rename(place)
    made = _open(place)
    assert made is not None  # noqa: S101 -- it was put there under the lock
    return made


def _place(cache: Cache, suite: str) -> Path:
    """Named by what decides the content. Newer versions in the archive do not: then every start would ask it."""
    text = "\n".join([suite, str(_VERSION), *archive.sources(suite, "main")])
    return cache.root / "kernels" / f"{suite}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _open(place: Path) -> Kernel | None:
    try:
        record = json.loads((place / _RECORD).read_bytes())
        version = record["version"]
    except (OSError, ValueError, KeyError):
        return None
    return Kernel(
        version=version,
        image=place / "vmlinuz",
        modules=place / "usr/lib/modules" / version,
        busybox=place / "busybox",
        packages=record["packages"],
    )


def _fetch(sources: list[str], root: Path) -> list[Path]:
    """The package files of kernel and busybox, fetched with a private root for apt in `root`."""
    env = host_archive.update(sources, root, ARCHITECTURE)
    shown = run(["apt-cache", "--no-all-versions", "show", _KERNEL], env=env).text
    depends = next((x for x in shown.splitlines() if x.startswith("Depends:")), "")
    real = _REAL.search(depends)
    if real is None:
        raise ToolFailedError(f"package `{_KERNEL}` names no kernel: {depends[:100]}")
    files = root / "files"
    files.mkdir()
    run(["apt-get", "-q", "download", real[0], _BUSYBOX], env=env, cwd=files)
    return sorted(files.glob("*.deb"))


def _unpack(packages: list[Path], home: Path) -> dict[str, object]:
    """Take what is wanted out of package files; returns what is to be remembered of them."""
    home.mkdir()
    # depmod looks below /lib or /usr/lib, depending on how it was built.
    (home / "usr/lib").mkdir(parents=True)
    (home / "lib").symlink_to("usr/lib")
    versions: dict[str, str] = {}
    version = ""
    for package in packages:
        name, number = run(
            ["dpkg-deb", "--show", "--showformat=${Package} ${Version}", package]
        ).text.split()
        versions[name] = number
        unpacked = home / "data.tar"
        with unpacked.open("w+b") as data:
            run(["dpkg-deb", "--fsys-tarfile", package], stdout=data)
            data.seek(0)
            version = _take(data, home) or version
        unpacked.unlink()
    if not version or not (home / "busybox").exists():
        raise ToolFailedError(f"kernel or busybox are not in {', '.join(sorted(versions))}")
    run(["depmod", "--basedir", home, version])
    return {"version": version, "packages": versions}


def _take(data: IO[bytes], home: Path) -> str:
    """Write the wanted files that are in the open tar archive `data`; returns the version of a kernel."""
    version = ""
    with tarfile.open(fileobj=data, mode="r:") as tar:
        for member in tar:
            name = str(PurePosixPath(member.name))
            if not member.isreg() or ".." in PurePosixPath(name).parts:
                continue
            kernel, module = _VMLINUZ.fullmatch(name), _MODULES.fullmatch(name)
            if kernel:
                version, target = kernel["version"], home / "vmlinuz"
            elif module:
                target = home / "usr" / module["path"]
            elif _BIN.fullmatch(name):
                target = home / "busybox"
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content is not None:
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)
    return version
