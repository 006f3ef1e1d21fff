"""Which file system begins at a place in an image: type, label and UUID as blkid gives them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from piimage.disk.fat_reader import Fat
from piimage.disk.lvm import MEMBER
from piimage.errors import ImageError
from piimage.facts import Filesystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from piimage.disk.window import Window

_EXT4_ONLY_INCOMPAT = 0x40 | 0x80 | 0x200  # extents, 64bit, flex_bg
_EXT4_ONLY_RO = 0x8 | 0x10 | 0x20 | 0x40 | 0x400  # huge_file ... metadata_csum
_JOURNAL = 0x4
_LUKS = b"LUKS\xba\xbe"
_SWAP_PAGES = (4096, 8192, 16384, 65536)


def probe(source: Window) -> Filesystem | None:
    """The file system that begins where `source` begins, or None if it is none that we know."""
    tests: tuple[Callable[[Window], Filesystem | None], ...] = (
        _luks,
        _lvm,
        _xfs,
        _btrfs,
        _ext,
        _swap,
        _vfat,
    )
    for test in tests:
        found = test(source)
        if found is not None:
            return found
    return None


def _peek(source: Window, offset: int, length: int) -> bytes:
    """Like `read`, but zeros stand for what lies beyond the end."""
    inside = max(0, min(length, source.size - offset))
    return source.read(offset, inside).ljust(length, b"\0") if inside else bytes(length)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace").strip()


def _luks(source: Window) -> Filesystem | None:
    raw = _peek(source, 0, 256)
    if not raw.startswith(_LUKS):
        return None
    label = _text(raw[24:72]) if raw[6:8] == b"\0\2" else ""
    return Filesystem(type="crypto_LUKS", label=label, uuid=_text(raw[168:208]))


def _lvm(source: Window) -> Filesystem | None:
    raw = _peek(source, 0, 2048)
    for at in range(0, 2048, 512):
        if raw[at : at + 8] == b"LABELONE" and raw[at + 24 : at + 32] == b"LVM2 001":
            start = at + int.from_bytes(raw[at + 20 : at + 24], "little")
            name, parts = _text(raw[start : start + 32]), []
            for length in (6, 4, 4, 4, 4, 4, 6):
                parts.append(name[:length])
                name = name[length:]
            return Filesystem(type=MEMBER, uuid="-".join(parts))
    return None


def _xfs(source: Window) -> Filesystem | None:
    raw = _peek(source, 0, 120)
    if not raw.startswith(b"XFSB"):
        return None
    return Filesystem(type="xfs", label=_text(raw[108:120]), uuid=str(uuid.UUID(bytes=raw[32:48])))


def _btrfs(source: Window) -> Filesystem | None:
    raw = _peek(source, 65536, 555)
    if raw[64:72] != b"_BHRfS_M":
        return None
    return Filesystem(
        type="btrfs", label=_text(raw[299:555]), uuid=str(uuid.UUID(bytes=raw[32:48]))
    )


def _ext(source: Window) -> Filesystem | None:
    raw = _peek(source, 1024, 1024)
    if raw[56:58] != b"\x53\xef":
        return None
    compat, incompat, ro_compat = (
        int.from_bytes(raw[at : at + 4], "little") for at in (92, 96, 100)
    )
    kind = "ext3" if compat & _JOURNAL else "ext2"
    if incompat & _EXT4_ONLY_INCOMPAT or ro_compat & _EXT4_ONLY_RO:
        kind = "ext4"
    return Filesystem(type=kind, label=_text(raw[120:136]), uuid=str(uuid.UUID(bytes=raw[104:120])))


def _swap(source: Window) -> Filesystem | None:
    for page in _SWAP_PAGES:
        if _peek(source, page - 10, 10) == b"SWAPSPACE2":
            raw = _peek(source, 1024, 44)
            return Filesystem(
                type="swap", label=_text(raw[28:44]), uuid=str(uuid.UUID(bytes=raw[12:28]))
            )
    return None


def _vfat(source: Window) -> Filesystem | None:
    if source.size < 512:  # noqa: PLR2004 -- one sector
        return None
    try:
        fat = Fat(source)
        label = fat.label()
    except ImageError:
        return None
    serial = fat.serial
    return Filesystem(type="vfat", label=label, uuid=f"{serial >> 16:04X}-{serial & 0xFFFF:04X}")
