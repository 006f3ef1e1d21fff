"""Copies and hashes of sparse files, and files that are there in full or not at all."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.disk.atomic import clean_partials, replacing, require_space, write_bytes
from piimage.disk.sparse import GRANULE, allocated_bytes, copy_sparse, hash_file, write_sparse
from piimage.errors import WriteFailedError

MIB = 1 << 20


@contextmanager
def file_size_limit(size):
    """The kernel's own way to refuse bytes, which needs no privilege."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


def holey(path, size, pieces):
    with path.open("wb") as file:
        file.truncate(size)
        for at, data in pieces.items():
            file.seek(at)
            file.write(data)
    return path


@pytest.fixture(params=[{}, {0: b"head"}, {5 * MIB: b"x" * 70000, 40 * MIB - 3: b"end"}])
def image(request, tmp_path):
    return holey(tmp_path / "source.img", 40 * MIB, request.param)


def test_copy_keeps_content_and_holes(image, tmp_path):
    target = holey(tmp_path / "target", 50 * MIB, {MIB: b"old" * 1000})

    copy_sparse(image, target)

    assert target.read_bytes() == image.read_bytes()
    assert allocated_bytes(target) <= allocated_bytes(image) + 65536


def test_copy_without_copy_file_range(image, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(18, "cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refused)
    copy_sparse(image, tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == image.read_bytes()


def test_copy_follows_no_link(image, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)

    with pytest.raises(WriteFailedError):
        copy_sparse(image, tmp_path / "link")

    assert victim.read_text() == "precious"


def test_hash_counts_zeros_and_is_what_sha256sum_says(image):
    expected = hashlib.sha256(image.read_bytes()).hexdigest()

    assert hash_file(image) == expected


@given(
    st.lists(st.sampled_from([bytes(GRANULE), b"x" * GRANULE, bytes(99) + b"y", b"z"]), max_size=9)
)
def test_write_sparse_writes_all_but_zeros(tmp_path_factory, parts):
    data = b"".join(parts)
    path = tmp_path_factory.getbasetemp() / "sparse"
    with path.open("wb") as file:
        file.truncate(len(data))
        write_sparse(file.fileno(), 0, data)

    assert path.read_bytes() == data
    full = sum(any(data[at : at + GRANULE]) for at in range(0, len(data), GRANULE))
    assert allocated_bytes(path) <= full * GRANULE


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "a.img"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_bytes(b"half" * (partial.write_bytes(b"half") // 0))

    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.img"]

    with replacing(path, mode=0o600) as partial:
        assert partial.parent == tmp_path
        assert partial.name == f".a.img.partial-{os.getpid()}"
        assert partial.stat().st_mode & 0o777 == 0o600
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_mode_is_as_asked_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        write_bytes(tmp_path / "open", b"", mode=0o644)
    finally:
        os.umask(before)

    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_says_how_much_was_needed(tmp_path):
    path = tmp_path / "a.img"
    with (
        file_size_limit(65536),
        pytest.raises(
            WriteFailedError, match=r"`[^`]*/a.img`: file too large \(40.0 MiB are needed\)"
        ),
        replacing(path, needed=40 * MIB) as partial,
    ):
        partial.write_bytes(bytes(MIB))

    assert list(tmp_path.iterdir()) == []


def test_copy_on_a_full_disk_names_the_file_to_be(tmp_path):
    source = holey(tmp_path / "source", MIB, {0: b"x" * MIB})
    (tmp_path / "out").mkdir()
    partial = tmp_path / "out" / ".node3.img.partial-1"
    with (
        file_size_limit(65536),
        pytest.raises(WriteFailedError, match=r"/out/node3\.img`: file too"),
    ):
        copy_sparse(source, partial)


def test_room_is_checked_up_front(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=100 * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    require_space(tmp_path, 50 * MIB)
    with pytest.raises(WriteFailedError, match=r"100.0 MiB free, 2.0 GiB are needed"):
        require_space(tmp_path, 2048 * MIB)


def test_partials_of_the_dead_go_and_of_the_living_stay(tmp_path):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    dead = tmp_path / f".a.img.partial-{done.pid}"
    mine = tmp_path / f".a.img.partial-{os.getpid()}"
    other = tmp_path / ".b.partial-x"
    for path in (dead, mine, other, tmp_path / "c.partial-1"):
        path.touch()

    assert clean_partials(tmp_path) == [dead]
    assert not dead.exists()
    assert mine.exists()
    assert other.exists()
