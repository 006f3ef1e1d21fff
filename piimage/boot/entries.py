"""What GRUB would start: the newest of the boot loader's entries on a card whose firmware starts U-Boot (Fedora).

U-Boot and GRUB themselves are not played: `virt` is given kernel, initrd and command line at once.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.disk.rootfs import open_tree, readable
from piimage.distros import boot_loader
from piimage.errors import ImageError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from piimage.facts import Partition

_LIMIT = 1 << 16
#: GRUB's variables that stand for a kernel's tokens (grub2-mkconfig, before Fedora 30 and where grubby was told so).
_VARIABLE = "$"
#: A kernel that unpacks itself as an EFI program (Linux, drivers/firmware/efi/libstub/zboot-header.S): two marks, and
#: where the packed image lies, how long it is, and by what it is packed.
_DOS, _ZIMG = b"MZ", b"zimg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """`kernel` and `initrd` are paths on the file system at byte `start`; `cmdline` its options."""

    start: int
    path: str
    kernel: str
    initrd: str | None
    cmdline: str


def newest(image: Path, partitions: Iterable[Partition]) -> Entry | None:
    """The entry that is started by itself, or None on a card without any; raises `ImageError` for a broken one."""
    for partition in partitions:
        if not readable(partition):
            continue
        with open_tree(image, partition.start) as tree:
            for top in ("", "/boot"):
                found = boot_loader.entries(tree.list_tree([f"{top}/{boot_loader.ENTRIES}"], 1))
                text = tree.read_files(found[:1], limit=_LIMIT)
                if text:
                    path = found[0]
                    return _entry(partition.start, top, path, text[path].decode(errors="replace"))
    return None


def _entry(start: int, top: str, path: str, text: str) -> Entry:
    kernel, initrd = (boot_loader.field(text, key) for key in ("linux", "initrd"))
    if not kernel:
        raise ImageError(f"the boot loader's entry `{path}` names no kernel")
    words = boot_loader.options(text).split()
    return Entry(
        start=start,
        path=path,
        kernel=top + kernel,
        initrd=top + initrd.split()[0] if initrd else None,
        cmdline=" ".join(word for word in words if not word.startswith(_VARIABLE)),
    )


def unpacked(kernel: bytes) -> bytes:
    """A kernel as QEMU starts it: what an EFI program has packed in it, else as it is; raises `ImageError`."""
    if kernel[:2] != _DOS or kernel[4:8] != _ZIMG:
        return kernel
    at, size = (int.from_bytes(kernel[i : i + 4], "little") for i in (8, 12))
    method = kernel[24:32].rstrip(b"\0").decode(errors="replace")
    packed = kernel[at : at + size]
    if method == "gzip":
        return gzip.decompress(packed)
    if method.startswith("zstd"):
        return run(["zstd", "-dc"], stdin=packed).stdout
    raise ImageError(f"the kernel is packed by `{method}`, which is not known here")
