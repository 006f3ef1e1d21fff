"""Installed packages of an RPM system, from its database alone: nothing of RPM is needed on this machine.

The database is SQLite with one table of package headers (`Packages`, column `blob`); older formats (Berkeley DB, ndb)
are not read. A header without its magic is two 32-bit counts, index entries of four 32-bit numbers (tag, type, offset,
count) and the data, all big-endian. Source: rpm's own description of its file format (docs/manual/format_header.md),
rpm 4.16 on for SQLite; Fedora has it since release 33.
"""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from contextlib import closing
from pathlib import Path

from piimage.bases.guest_text import Packages
from piimage.errors import ImageError

#: Where the database is: Fedora 36 and later, and before. What was written last may be in the log beside it.
PLACES = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
LOG = "-wal"

_NAME, _VERSION, _RELEASE, _EPOCH, _ARCHITECTURE = 1000, 1001, 1002, 1003, 1022
_INT32, _STRING = 4, 6
#: RPM's name of an architecture -> Debian's, which Facts go by.
DEBIAN_NAMES = {"aarch64": "arm64", "armv7hl": "armhf", "x86_64": "amd64", "riscv64": "riscv64"}
#: Keys that were imported are packages too, of this name.
_KEY = "gpg-pubkey"
_HEAD, _ENTRY = struct.Struct(">II"), struct.Struct(">IIII")


def installed(database: bytes, log: bytes = b"") -> Packages:
    """What the database with its write-ahead log says is installed: versions as `[epoch:]version-release`.

    Of several versions of one package, as kernels have, the last one counts. Raises `ImageError` for bytes that are
    no such database.
    """
    versions: dict[str, str] = {}
    architectures: set[str] = set()
    for header in _headers(database, log):
        try:
            fields = _fields(header)
            name, version = fields[_NAME], f"{fields[_VERSION]}-{fields[_RELEASE]}"
        except (KeyError, struct.error, ValueError, IndexError) as error:
            raise ImageError("the image's RPM database has a header that is damaged") from error
        if name == _KEY:
            continue
        epoch = fields.get(_EPOCH, "0")
        versions[name] = version if epoch == "0" else f"{epoch}:{version}"
        architecture = fields.get(_ARCHITECTURE, "noarch")
        if architecture != "noarch":
            architectures.add(DEBIAN_NAMES.get(architecture, architecture))
    return Packages(versions, frozenset(architectures))


def _headers(database: bytes, log: bytes) -> list[bytes]:
    """Headers in the order in which packages were installed."""
    with tempfile.TemporaryDirectory(prefix="piimage-") as name:
        path = Path(name, "rpmdb.sqlite")
        path.write_bytes(database)
        path.with_name(path.name + LOG).write_bytes(log)
        try:
            with closing(sqlite3.connect(path)) as connection:
                rows = connection.execute("SELECT blob FROM Packages ORDER BY hnum").fetchall()
        except sqlite3.Error as error:
            raise ImageError("the image's RPM database cannot be read") from error
    return [blob for (blob,) in rows if isinstance(blob, bytes)]


def _fields(header: bytes) -> dict[int, str]:
    """Tag -> value of the fields that are looked at."""
    count, _ = _HEAD.unpack_from(header)
    start = _HEAD.size + count * _ENTRY.size
    found = {}
    for at in range(_HEAD.size, min(start, len(header)), _ENTRY.size):
        tag, kind, offset, _ = _ENTRY.unpack_from(header, at)
        if tag not in (_NAME, _VERSION, _RELEASE, _EPOCH, _ARCHITECTURE):
            continue
        if kind == _STRING:
            end = header.index(b"\0", start + offset)
            found[tag] = header[start + offset : end].decode(errors="replace")
        elif kind == _INT32:
            found[tag] = str(int.from_bytes(header[start + offset :][:4], "big"))
    return found
