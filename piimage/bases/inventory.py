"""What an image has on board: kernels, locales, time zones, and the architecture it is made for."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from piimage.errors import ImageError, UnsupportedError
from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from piimage.facts import FileFact

MODULES = "/usr/lib/modules"
ZONEINFO = "/usr/share/zoneinfo"
LOCALES = "/usr/lib/locale"
LOCALE_ARCHIVE = f"{LOCALES}/locale-archive"
#: A program that every image has; each may be a link.
PROGRAMS = ("/usr/bin/dash", "/usr/bin/bash", "/bin/sh", "/usr/bin/ls")

_ZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Z][A-Za-z0-9_+-]*){0,2}")
_ELF = b"\x7fELF"
#: e_machine of elf(5) and class bits -> Debian's name of the architecture.
_MACHINES = {(183, 2): "arm64", (62, 2): "amd64", (3, 1): "i386", (243, 2): "riscv64"}
_ARM, _HARD_FLOAT = 40, 0x400
_ARCHIVE_MAGIC = 0xDE020109
_ARCHIVE_HEAD = struct.Struct("<6I")
_ARCHIVE_NAME = struct.Struct("<3I")
_MAX_LOCALES = 100_000


def kernels(names: Iterable[str]) -> tuple[str, ...]:
    """Kernel releases, oldest first, from paths: modules on board, else files in /boot."""
    paths = list(names)
    for prefix in (f"{MODULES}/", "/boot/vmlinuz-"):
        found = {path.removeprefix(prefix) for path in paths if path.startswith(prefix)}
        if found:
            return tuple(sorted((name for name in found if "/" not in name), key=_version))
    return ()


def timezones(listing: Mapping[str, FileFact]) -> frozenset[str]:
    """Names that TZ may have: files and links below zoneinfo, `posix/` and `right/` left out."""
    prefix = f"{ZONEINFO}/"
    names = (p.removeprefix(prefix) for p, f in listing.items() if f.kind in ("file", "link"))
    return frozenset(name for name in names if _ZONE.fullmatch(name))


def locales(listing: Mapping[str, FileFact], archive: bytes) -> frozenset[str]:
    """Names as `locale -a` prints them; `C` and `POSIX` are built into the C library."""
    prefix = f"{LOCALES}/"
    compiled = {
        path.removeprefix(prefix)
        for path, fact in listing.items()
        if path.startswith(prefix) and "/" not in path[len(prefix) :] and fact.kind == "dir"
    }
    return frozenset({"C", "POSIX"} | compiled | archived_locales(archive))


def archived_locales(archive: bytes) -> frozenset[str]:
    """Names in a locale-archive (layout: glibc, locale/locarchive.h); damage gives no names."""
    try:
        magic, _, start, _, slots, _ = _ARCHIVE_HEAD.unpack_from(archive)
        if magic != _ARCHIVE_MAGIC or slots > _MAX_LOCALES:
            return frozenset()
        places = (_ARCHIVE_NAME.unpack_from(archive, start + i * 12)[1] for i in range(slots))
        names = [archive[at : archive.index(b"\0", at)].decode("ascii") for at in places if at]
    except (struct.error, ValueError):
        return frozenset()
    return frozenset(names)


def architecture(programs: Mapping[str, bytes], packaged: Collection[str]) -> str:
    """Debian's name of the architecture, from a program's ELF header, checked against dpkg's.

    Raises `ImageError` when there is no program or the two differ, `UnsupportedError` for a machine
    that no Debian runs on.
    """
    for path in PROGRAMS:
        head = programs.get(path, b"")[:64]
        if head.startswith(_ELF) and len(head) >= 40:  # noqa: PLR2004 -- where e_flags of a 32-bit header ends
            found = _machine(path, head)
            break
    else:
        raise ImageError(
            f"the image has none of {', '.join(PROGRAMS)} as a program, so it is no complete system"
        )
    if packaged and found not in packaged:
        raise ImageError(
            f"the programs of the image are `{found}`, but its packages are "
            + ", ".join(shown(name) for name in sorted(packaged)[:4])
        )
    return found


def _machine(path: str, head: bytes) -> str:
    width, order = head[4], "<" if head[5] == 1 else ">"
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    if machine == _ARM and width == 1:
        (flags,) = struct.unpack_from(f"{order}I", head, 36)
        return "armhf" if flags & _HARD_FLOAT else "armel"
    name = _MACHINES.get((machine, width))
    if name is None:
        raise UnsupportedError(f"`{path}` is for machine type {machine}, which is not supported")
    return name


def _version(name: str) -> list[tuple[int, int, str]]:
    """A sort key that puts 6.9 before 6.12."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
