"""What may not get into an image: programs of the machine that made it."""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from typing import TYPE_CHECKING

from piimage.errors import ToolFailedError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Where an ELF header names its machine, and what stands there for x86-64 (elf(5), EM_X86_64 = 62).
_E_MACHINE, _X86_64 = 18, b"\x3e\0"
_NEWC = b"070701"


def _zstd(data: bytes) -> bytes:
    return run(["zstd", "-dc"], stdin=data).stdout


#: First bytes of each way to pack an initramfs that initramfs-tools has and Debian's kernels read.
_PACKED: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\x1f\x8b\x08": gzip.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
}


def refuse_foreign_programs(name: str, packed: bytes) -> None:
    """Raise `ToolFailedError` if the initramfs `name` holds a program for x86-64: it would stop every boot."""
    for found in re.finditer(rb"\x7fELF[\x01\x02]\x01\x01", _unpacked(name, packed)):
        machine = found.string[found.start() + _E_MACHINE : found.start() + _E_MACHINE + 2]
        if machine == _X86_64:
            raise ToolFailedError(
                f"the initramfs `{name}` holds a program of this machine's architecture"
            )


def _unpacked(name: str, packed: bytes) -> bytes:
    """The archives of an initramfs: one that is not compressed may come first (initramfs-tools 0.146)."""
    start = 0
    if packed.startswith(_NEWC):
        start = packed.find(b"TRAILER!!!")
    places = {packed.find(magic, start): magic for magic in _PACKED}
    at = min((place for place in places if place >= 0), default=-1)
    if at < 0:
        if packed.startswith(_NEWC):
            return packed
        raise ToolFailedError(
            f"the initramfs `{name}` is packed in a way that cannot be looked into"
        )
    try:
        return packed[:at] + _PACKED[places[at]](packed[at:])
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ToolFailedError(f"the initramfs `{name}` is damaged") from error
