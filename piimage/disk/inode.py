"""What every kind of file system knows of a file: its inode, and the runs of blocks that hold its content."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from piimage.disk.window import Window


@dataclass(frozen=True, slots=True)
class Run:
    """`count` blocks of a file from `logical` on, at `physical`; `written` unless reserved."""

    logical: int
    physical: int
    count: int
    written: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inode:
    """One inode: `mode` with its type bits, `size` in bytes, `mtime` in epoch seconds.

    `flags` has 0x10 for immutable and 0x20 for append-only (chattr(1)); other bits are the file system's own. `raw` is
    how it lies on the disk, for its reader.
    """

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    flags: int
    raw: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        """`file`, `dir`, `link` or `other`, as in `FileFact`."""
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
        return kinds.get(stat.S_IFMT(self.mode), "other")


def gathered(source: Window, runs: Iterable[Run], size: int, block: int) -> bytes:
    """`size` bytes that lie at `runs`, in blocks of `block` bytes; holes and reserved space are zeros."""
    out = bytearray(size)
    for run in runs:
        start = run.logical * block
        length = min(run.count * block, size - start)
        if run.written and length > 0:
            out[start : start + length] = source.read(run.physical * block, length)
    return bytes(out)
