"""Files that are read while they are written."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import subprocess
import zipfile
import zlib
from threading import Thread

import pytest

from piimage.disk.growing import BrokenOffError, Growth, StartedOverError, confirmed, follow
from piimage.errors import ImageError

IMAGE = random.Random(2).randbytes(60_000) + bytes(400_000) + b"end"


def packed(kind, tmp_path, names=("x.img",)):
    path = tmp_path / f"packed.{kind}"
    if kind == "xz":
        half = len(IMAGE) // 2  # two streams and padding, as parallel compressors write them
        data = lzma.compress(IMAGE[:half]) + bytes(8) + lzma.compress(IMAGE[half:])
    elif kind == "gz":
        data = gzip.compress(IMAGE)
    elif kind == "zst":
        data = subprocess.run(
            ["zstd", "-qc"], input=IMAGE, stdout=subprocess.PIPE, check=True
        ).stdout
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, IMAGE)
        data = path.read_bytes()
    else:
        data = IMAGE
    return data


class Writer:
    """Writes a file bit by bit in a thread of its own."""

    def __init__(self, path, data, *, step=7_001, fail_at=None, over_at=None):
        self.path, self.data, self.step, self.fail_at, self.over_at = (
            path,
            data,
            step,
            fail_at,
            over_at,
        )
        self.growth = Growth()
        path.write_bytes(b"")
        self.thread = Thread(target=self.run)
        self.thread.start()

    def run(self):
        at = 0
        with self.path.open("r+b", buffering=0) as file:
            while at < len(self.data):
                if self.fail_at is not None and at >= self.fail_at:
                    self.growth.end(failed=True)
                    return
                if self.over_at is not None and at >= self.over_at:
                    self.over_at = None
                    self.growth.start_over()
                    file.truncate(0)
                    at = 0
                file.seek(at)
                at += file.write(self.data[at : at + self.step])
                self.growth.reach(at)
        self.growth.end()


def read(writer, name="x.img.xz"):
    content = b""
    try:
        with follow(writer.path, writer.growth, name) as stream:
            if stream is None:
                return None
            while block := stream.read(100_000):
                content += block
    finally:
        writer.thread.join()
    return content


@pytest.mark.parametrize("kind", ["raw", "xz", "gz", "zst", "zip"])
def test_unpacked_while_it_comes(tmp_path, kind):
    assert read(Writer(tmp_path / "part", packed(kind, tmp_path))) == IMAGE


@pytest.mark.parametrize("kind", ["xz", "gz", "zst", "zip"])
def test_a_file_that_ends_early_is_damaged(tmp_path, kind):
    data = packed(kind, tmp_path)

    with pytest.raises(ImageError, match=r"`x\.img\.xz` is truncated"):
        read(Writer(tmp_path / "part", data[: len(data) // 2]))


@pytest.mark.parametrize("kind", ["xz", "gz", "zst"])
def test_damaged_data(tmp_path, kind):
    data = bytearray(packed(kind, tmp_path))
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)

    with pytest.raises(ImageError):
        read(Writer(tmp_path / "part", bytes(data)))


def test_damaged_data_of_a_zip_shows_in_its_index(tmp_path):
    data = bytearray(packed("zip", tmp_path))
    data[20_000:20_001] = bytes([data[20_000] ^ 1])
    (tmp_path / "packed.zip").write_bytes(data)

    content = read(Writer(tmp_path / "part", bytes(data)))

    assert not confirmed(tmp_path / "packed.zip", len(content), zlib.crc32(content))


@pytest.mark.parametrize("kind", ["raw", "xz", "gz", "zst", "zip"])
def test_a_writer_that_gives_up_is_no_end(tmp_path, kind):
    with pytest.raises(BrokenOffError):
        read(Writer(tmp_path / "part", packed(kind, tmp_path), fail_at=20_000))


@pytest.mark.parametrize("kind", ["raw", "xz", "gz", "zst", "zip"])
def test_a_writer_that_starts_over_makes_void_what_was_read(tmp_path, kind):
    writer = Writer(tmp_path / "part", packed(kind, tmp_path), over_at=30_000)

    try:
        content = read(writer)
    except StartedOverError:
        content = read(writer)
    assert content == IMAGE


def test_a_writer_that_gave_up_before_the_first_byte(tmp_path):
    with pytest.raises(BrokenOffError):
        read(Writer(tmp_path / "part", IMAGE, fail_at=0))


def test_qcow2_is_for_later(tmp_path):
    assert read(Writer(tmp_path / "part", b"QFI\xfb" + bytes(100_000))) is None


@pytest.mark.parametrize("names", [("readme.txt", "x.img"), ("readme.txt",)])
def test_a_zip_that_begins_with_something_else_is_for_later(tmp_path, names):
    assert read(Writer(tmp_path / "part", packed("zip", tmp_path, names))) is None


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"PK\x03\x04" + bytes(40)])
def test_a_zip_without_a_whole_header_is_for_later(tmp_path, data):
    assert read(Writer(tmp_path / "part", data)) is None


def test_what_no_image_is(tmp_path):
    with pytest.raises(ImageError, match="is bzip2 data"):
        read(Writer(tmp_path / "part", b"BZh9" + bytes(100)))


def test_the_index_of_a_zip_confirms_what_was_read(tmp_path):
    packed("zip", tmp_path)
    crc = zlib.crc32(IMAGE)

    assert confirmed(tmp_path / "packed.zip", len(IMAGE), crc)
    assert not confirmed(tmp_path / "packed.zip", len(IMAGE) - 1, crc)
    assert not confirmed(tmp_path / "packed.zip", len(IMAGE), crc ^ 1)
    packed("zip", tmp_path, ("x.img", "y.img"))
    assert not confirmed(tmp_path / "packed.zip", len(IMAGE), crc)
    os.truncate(tmp_path / "packed.zip", 1000)
    with pytest.raises(ImageError, match="truncated"):
        confirmed(tmp_path / "packed.zip", len(IMAGE), crc)


def test_a_file_that_somebody_else_makes_shorter_has_no_early_end(tmp_path):
    writer = Writer(tmp_path / "part", IMAGE)
    writer.thread.join()
    os.truncate(writer.path, 1000)

    with pytest.raises(BrokenOffError):
        read(writer)
