"""Native tools that need no place of their own in the guest: copies whose paths lead to `/run/piimage`.

A dynamic program names its loader, and the loader and perl name the directories of libraries, as text in the file.
Text of the same length takes its place (what conda does with prefixes), so that tools work from a tmpfs and the
guest's tree gets no `/lib64` and no foreign library directory. dpkg has its architecture built in as text too:
a native dpkg that says `arm64` is a dpkg for the guest's tree that nothing emulates. That it does say so is tried.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piimage.bases.cache import Cache
    from piimage.bases.native import NativeTools
    from piimage.progress import Progress

#: Raised whenever the copies change, so that those of an older piimage are made anew.
_VERSION = 1
_LIBRARIES, _LOADER = b"/run/piimage/lib", b"/run/piimage/ld.so"
_ELF = b"\x7fELF"
#: Parts of the tools that hold programs and what these load.
_PARTS = ("usr/bin", "usr/sbin", "usr/lib")
#: Below the copies: dpkg's programs for each architecture that has a name as long as the host's.
DPKG = "dpkg"


def moved(
    tools: NativeTools,
    native: str,
    architectures: tuple[str, ...],
    *,
    cache: Cache,
    progress: Progress,
) -> Path:
    """The directory of copies of `tools`, made when it is not in the cache; `native` is their architecture.

    It has `usr/` with the programs, and `dpkg/ARCHITECTURE/` with dpkg's for `architectures`.
    """
    target = tools.directory.with_name(f"{tools.directory.name}-moved-{_VERSION}")
    if not target.is_dir():
        with progress.step("making native tools for bakes"), cache.scratch() as scratch:
            copy = scratch / "tools"
            for part in _PARTS:
                _copy(tools.directory / part, copy / part, tools)
            for name in architectures:
                _dpkg(copy, native, name)
            copy.chmod(0o755)
            copy.rename(target)
    return target


def relocated(data: bytes, triplet: str, loader: str) -> bytes:
    """An ELF file with its paths led elsewhere, every byte else where it was."""
    for directory in (f"/usr/lib/{triplet}", f"/lib/{triplet}"):
        old = directory.encode()
        data = data.replace(old, _LIBRARIES.ljust(len(old), b"/"))
    for path in (f"/lib64/{loader}", "/etc/ld.so.preload", "/etc/ld.so.cache"):
        old = path.encode() + b"\0"
        new = _LOADER if path.startswith("/lib64") else b"/run/piimage/0"
        data = data.replace(old, new.ljust(len(old), b"\0"))
    return data


def _copy(source: Path, target: Path, tools: NativeTools) -> None:
    """Copy a directory, ELF files relocated; what we may not read is nothing that we need."""
    target.mkdir(parents=True)
    for entry in os.scandir(source):
        place = target / entry.name
        if entry.is_symlink():
            place.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            _copy(source / entry.name, place, tools)
        elif entry.is_file() and os.access(entry.path, os.R_OK):
            data = (source / entry.name).read_bytes()
            if data.startswith(_ELF):
                data = relocated(data, tools.triplet, tools.loader)
            place.write_bytes(data)
            place.chmod(0o755 if entry.stat().st_mode & 0o111 else 0o644)


def _dpkg(copy: Path, native: str, architecture: str) -> None:
    """The programs of dpkg for `architecture`, unless its name does not fit."""
    if len(native) != len(architecture):
        return
    place = copy / DPKG / architecture
    place.mkdir(parents=True)
    for program in sorted((copy / "usr/bin").glob("dpkg*")):
        data = program.read_bytes()
        if data.startswith(_ELF) and not program.is_symlink():
            data = data.replace(
                b"\0" + native.encode() + b"\0", b"\0" + architecture.encode() + b"\0"
            )
            (place / program.name).write_bytes(data)
            (place / program.name).chmod(0o755)
