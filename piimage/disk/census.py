"""A census: every name on both file systems of an image with what it is, so that any change can be named.

Contents are told by their SHA-256. Times are read, but neither compared nor kept: equal trees have equal censuses.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import stat
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from piimage.disk import rootfs
from piimage.disk.fat_reader import Fat
from piimage.disk.table import read_table
from piimage.disk.window import window
from piimage.errors import ImageError
from piimage.facts import PartitionTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from piimage.disk.inode import Inode
    from piimage.disk.slots import Patch
    from piimage.disk.tree import FileTree

#: The key of the document; another version has another one.
_KEY = "census 1"
#: Flags of inodes that somebody sets on purpose: immutable and append-only (chattr(1)).
_FLAGS = 0x30
_FAT_MODE = 0o755
_DISK_ID = 0x1B8
_DEVICES = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p", stat.S_IFSOCK: "s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One name: `kind` as in `FileFact`, `size` and `sha256` of a file's content, `target` of a link.

    `target` of what is none of these three is its type and number, as in `c 1:3`. `attributes` are the extended
    ones, as text where they are text and else in hex. `mtime` is in epoch seconds, 0 on the FAT and in what was kept.
    """

    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    sha256: str = ""
    target: str = ""
    flags: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)
    mtime: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """All of an image: `root` by path, `firmware` by path on the FAT (from `/`), which is mounted at `place`.

    `apart` are the mount points of other file systems with their partitions' numbers; `root` has their files too.
    `numbers` are those of the two partitions, `boot_sector` is the digest of the first sector without the disk's
    signature: flags, boot code and what else the table does not tell. `superblock` has what of the root's superblock
    is settled when the file system is made (`superblock_settings`).
    """

    table: PartitionTable
    numbers: tuple[int, int]
    boot_sector: str
    superblock: str
    place: str
    root: Mapping[str, Seen]
    firmware: Mapping[str, Seen]
    apart: Mapping[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Compressed JSON; equal censuses give equal bytes."""
        document = {
            "table": self.table.to_json(),
            "numbers": self.numbers,
            "boot_sector": self.boot_sector,
            "superblock": self.superblock,
            "place": self.place,
            "root": {path: _short(seen) for path, seen in self.root.items()},
            "firmware": {path: _short(seen) for path, seen in self.firmware.items()},
            **({"apart": dict(self.apart)} if self.apart else {}),
        }
        text = json.dumps({_KEY: document}, sort_keys=True, separators=(",", ":"))
        return gzip.compress(text.encode(errors="surrogateescape"), 6, mtime=0)

    @classmethod
    def decode(cls, data: bytes, name: str) -> Census:
        """Read `encode` back; raises `ImageError` that calls the data `name` for anything else."""
        try:
            document = json.loads(gzip.decompress(data))[_KEY]
            root, firmware = map(int, document["numbers"])
            return cls(
                table=PartitionTable.from_json(document["table"]),
                numbers=(root, firmware),
                boot_sector=document["boot_sector"],
                superblock=document["superblock"],
                place=document["place"],
                root={path: Seen(**values) for path, values in document["root"].items()},
                firmware={path: Seen(**values) for path, values in document["firmware"].items()},
                apart={str(path): int(n) for path, n in document.get("apart", {}).items()},
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise ImageError(
                f"`{name}` is damaged or of another version of piimage",
                hint="remove it: `piimage build` makes it again",
            ) from error


def take(
    image: Path, *, root: int, firmware: int, place: str, apart: Mapping[str, int] | None = None
) -> Census:
    """The census of a raw image whose partitions of those numbers are the two; raises `ImageError`."""
    table = read_table(image)
    return Census(
        table=table,
        numbers=(root, firmware),
        boot_sector=boot_sector(image),
        superblock=superblock_settings(image, table.partition(root).start),
        place=place,
        root=of_all(image, table, root, apart or {}),
        apart=apart or {},
        firmware=of_firmware(image, table.partition(firmware).start),
    )


def boot_sector(image: Path) -> str:
    """The digest of the first sector, as it would be with a signature of zeros."""
    with window(image) as source:
        return sector_digest(source.read(0, 512))


def sector_digest(sector: bytes) -> str:
    """The same of a sector that is at hand."""
    raw = bytearray(sector)
    raw[_DISK_ID : _DISK_ID + 4] = bytes(4)
    return hashlib.sha256(raw).hexdigest()


def superblock_settings(image: Path, offset: int) -> str:
    """`FileTree.settings` of the file system at byte `offset`."""
    with rootfs.open_tree(image, offset) as tree:
        return tree.settings()


def of_root(image: Path, offset: int) -> dict[str, Seen]:
    """Everything in the Linux file system at byte `offset`."""
    with rootfs.open_tree(image, offset) as tree:
        return dict(_walked(tree))


def of_all(
    image: Path, table: PartitionTable, root: int, apart: Mapping[str, int]
) -> dict[str, Seen]:
    """The root file system with what is mounted in it, by path of the running system."""
    found = of_root(image, table.partition(root).start)
    for place, number in apart.items():
        inside = of_root(image, table.partition(number).start)
        found = {p: seen for p, seen in found.items() if not p.startswith(f"{place}/")}
        found |= {place + ("" if p == "/" else p): seen for p, seen in inside.items()}
    return found


def at_paths(
    image: Path, offset: int, paths: Iterable[str], patches: Sequence[Patch]
) -> dict[str, Seen]:
    """Those of `paths` that are there, as `patches` would make them."""
    with rootfs.open_tree(image, offset, patches) as tree:
        return {
            path: _seen(tree, inode, {}) for name in paths for path, inode in tree.walk(name, 0)
        }


def of_firmware(image: Path, offset: int, patches: Sequence[Patch] = ()) -> dict[str, Seen]:
    """Everything on the FAT at byte `offset`, as `patches` would make it."""
    with window(image, offset, patches) as source:
        fat = Fat(source)
        found = {}
        for path, entry in fat.walk():
            if entry.directory:
                found[path] = Seen(kind="dir", mode=_FAT_MODE)
                continue
            digest = hashlib.sha256(fat.content(entry)).hexdigest()
            found[path] = Seen(kind="file", mode=_FAT_MODE, size=entry.size, sha256=digest)
        return found


def _walked(tree: FileTree) -> Iterable[tuple[str, Seen]]:
    digests: dict[int, str] = {}
    for path, inode in tree.walk():
        yield path, _seen(tree, inode, digests)


def _seen(tree: FileTree, inode: Inode, digests: dict[int, str]) -> Seen:
    """One inode; `digests` are those that are known by number, since names may share an inode."""
    target = ""
    if inode.kind == "link":
        target = tree.link_target(inode).decode(errors="surrogateescape")
    elif inode.kind == "file" and inode.number not in digests:
        hasher = hashlib.sha256()
        for piece in tree.pieces(inode):
            hasher.update(piece)
        digests[inode.number] = hasher.hexdigest()
    elif inode.kind == "other":
        target = _device(tree, inode)
    return Seen(
        kind=inode.kind,
        mode=stat.S_IMODE(inode.mode),
        uid=inode.uid,
        gid=inode.gid,
        size=inode.size if inode.kind == "file" else 0,
        sha256=digests.get(inode.number, ""),
        target=target,
        flags=inode.flags & _FLAGS,
        attributes={name: _text(value) for name, value in tree.attributes(inode).items()},
        mtime=inode.mtime,
    )


def _device(tree: FileTree, inode: Inode) -> str:
    """Type and number of a device, or the type of a pipe or socket."""
    letter = _DEVICES.get(stat.S_IFMT(inode.mode), "?")
    if letter not in "cb":
        return letter
    major, minor = tree.device(inode)
    return f"{letter} {major}:{minor}"


def _text(value: bytes) -> str:
    text = value.rstrip(b"\0").decode("ascii", errors="replace")
    return text if text.isprintable() and text.isascii() else value.hex()


def _short(seen: Seen) -> dict[str, Any]:
    """What is not as it is in most: a census has a name for each of tens of thousands of files."""
    whole = asdict(replace(seen, mtime=0))
    return {name: value for name, value in whole.items() if value or name in ("kind", "mode")}
