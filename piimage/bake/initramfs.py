"""An initramfs of our own: a cpio archive that holds an `init`, a busybox, and kernel modules in loading order.

Written here because it is a page of code, wants device nodes that only root could make in a directory, and has to be
the same for everybody. Format: `newc` of cpio(5), Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
It is not compressed: QEMU puts it into memory as it is, and unpacking would be emulated.
"""

from __future__ import annotations

import lzma
import re
import stat
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from piimage.errors import ToolFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from piimage.bake.kernel import Kernel

#: Where `init` finds its modules: `insmod` of each in the order of their names.
MODULES = "modules"
_DIRECTORIES = ("bin", "dev", MODULES, "proc", "root", "sys")
_CONSOLE = (5, 1)  # Documentation/admin-guide/devices.txt
_MODULE = re.compile(r"(?P<name>[^/]+)\.ko(?:\.xz)?")


def initramfs(kernel: Kernel, modules: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """The archive: `modules` and what they depend on, `files` by their path without a leading `/`.

    Files are 0755 and root's. `init` is one of them, and finds `/bin/busybox`. Raises `ToolFailedError` for a module
    that the kernel does not have.
    """
    archive = _Archive()
    for name in _DIRECTORIES:
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=_CONSOLE)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, kernel.busybox.read_bytes())
    for number, path in enumerate(loading_order(kernel, modules)):
        name = path.name.removesuffix(".xz")
        data = (kernel.modules / path).read_bytes()
        content = lzma.decompress(data) if path.suffix == ".xz" else data
        archive.add(f"{MODULES}/{number:03}-{name}", stat.S_IFREG | 0o755, content)
    for name, data in files.items():
        archive.add(name, stat.S_IFREG | 0o755, data)
    return archive.end()


def loading_order(kernel: Kernel, names: Iterable[str]) -> list[PurePosixPath]:
    """Paths of the modules below `kernel.modules`, each after what it depends on (modules.dep(5)).

    What is built into the kernel needs no file. Raises `ToolFailedError` for a module that is not there at all.
    """
    needs: dict[str, list[str]] = {}
    paths: dict[str, str] = {}
    for line in (kernel.modules / "modules.dep").read_text(encoding="utf-8").splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        paths[_module(path)] = path
    builtin = (kernel.modules / "modules.builtin").read_text(encoding="utf-8").splitlines()
    within = {_module(path) for path in builtin}
    order: dict[str, None] = {}
    for name in names:
        path = paths.get(name.replace("-", "_"), "")
        if path:
            # Of several, the one that others need comes last in modules.dep.
            order.update(dict.fromkeys([*reversed(needs[path]), path]))
        elif name.replace("-", "_") not in within:
            raise ToolFailedError(f"Linux {kernel.version} has no module `{name}`")
    return [PurePosixPath(path) for path in order]


def _module(path: str) -> str:
    """The name that a module file gives: the kernel takes `-` for `_`."""
    match = _MODULE.fullmatch(PurePosixPath(path).name)
    return match["name"].replace("-", "_") if match else ""


class _Archive:
    """A cpio archive under way."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0

    def add(
        self, name: str, mode: int, content: bytes = b"", *, device: tuple[int, int] = (0, 0)
    ) -> None:
        """One file, directory or device of root's, from 1970."""
        self._inode += 1
        path = name.encode() + b"\0"
        numbers = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        self._data += b"070701" + b"".join(b"%08X" % number for number in numbers) + path
        self._pad()
        self._data += content
        self._pad()

    def end(self) -> bytes:
        """The whole archive."""
        self.add("TRAILER!!!", 0)
        return bytes(self._data)

    def _pad(self) -> None:
        self._data += bytes(-len(self._data) % 4)
