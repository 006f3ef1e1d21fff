"""RPM's database as a file: what is installed, and damage that is told."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.bases.rpm_database import installed
from piimage.errors import ImageError

STRING, INT32 = 6, 4


def header(name, version, release, *, epoch=None, architecture="aarch64"):
    """A header as rpm stores it: two counts, index, data."""
    entries = [(1000, name), (1001, version), (1002, release), (1022, architecture)]
    index, data = b"", b""
    for tag, value in entries:
        index += struct.pack(">IIII", tag, STRING, len(data), 1)
        data += value.encode() + b"\0"
    if epoch is not None:
        data += bytes(-len(data) % 4)
        index += struct.pack(">IIII", 1003, INT32, len(data), 1)
        data += struct.pack(">I", epoch)
    return struct.pack(">II", len(index) // 16, len(data)) + index + data


def database(path, *headers):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(h,) for h in headers])
    connection.commit()
    connection.close()
    return path.read_bytes()


def test_names_versions_and_architectures(tmp_path):
    found = installed(
        database(
            tmp_path / "rpmdb.sqlite",
            header("bash", "5.2.37", "1.fc43"),
            header("shadow-utils", "4.18", "3.fc43", epoch=2),
            header("tzdata", "2025b", "1.fc43", epoch=0, architecture="noarch"),
            header("gpg-pubkey", "31645531", "66b6dccf", architecture="(none)"),
        )
    )

    assert found.versions == {
        "bash": "5.2.37-1.fc43", "shadow-utils": "2:4.18-3.fc43", "tzdata": "2025b-1.fc43",
    }  # fmt: skip
    assert found.architectures == {"arm64"}


def test_of_several_kernels_the_last_one_counts(tmp_path):
    versions = ("6.17.1", "6.17.9")
    data = database(tmp_path / "db", *(header("kernel-core", v, "300.fc43") for v in versions))

    assert installed(data).versions == {"kernel-core": "6.17.9-300.fc43"}


def test_what_is_still_in_the_log_counts(tmp_path):
    path = tmp_path / "rpmdb.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    connection.execute("INSERT INTO Packages (blob) VALUES (?)", (header("late", "1", "1"),))
    connection.commit()
    before, log = path.read_bytes(), path.with_name("rpmdb.sqlite-wal").read_bytes()
    connection.close()

    assert installed(before, log).versions == {"late": "1-1"}
    with pytest.raises(ImageError, match="cannot be read"):
        installed(before)


@pytest.mark.parametrize("data", [b"", b"x" * 5000, b"SQLite format 3\0" + bytes(200)])
def test_what_is_no_database(data):
    with pytest.raises(ImageError, match="RPM database cannot be read"):
        installed(data)


@given(at=st.integers(0, 100), byte=st.integers(0, 255), cut=st.integers(0, 100))
def test_a_damaged_header_is_an_image_error_or_nothing_worse(tmp_path_factory, at, byte, cut):
    damaged = bytearray(header("bash", "5.2.37", "1.fc43"))
    damaged[at % len(damaged)] = byte
    path = tmp_path_factory.mktemp("db") / "rpmdb.sqlite"
    data = database(path, bytes(damaged[: len(damaged) - cut]))

    with suppress(ImageError):
        assert len(installed(data).versions) <= 1
