"""Importing images: every container, whole or broken, and what pretends to be one."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import subprocess
import zipfile

import pytest

from piimage.disk.intake import import_image
from piimage.disk.sparse import allocated_bytes
from piimage.disk.streams import image_format, open_image
from piimage.disk.table import read_table
from piimage.errors import ConfigError, ImageError, VerifyError

MIB = 1 << 20


def tool(*argv):
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)


def pack(kind, image, target):
    """`image` in a container; names lie on purpose, since only content decides."""
    if kind == "raw":
        tool("cp", "--sparse=always", image, target)
    elif kind == "xz":
        with target.open("wb") as out:
            subprocess.run(["xz", "-1cT2", image], stdout=out, check=True)
    elif kind == "gz":
        with target.open("wb") as out:
            subprocess.run(["gzip", "-1c", image], stdout=out, check=True)
    elif kind == "zst":
        tool("zstd", "-1q", image, "-o", target)
    elif kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("README.txt", "hello")
            archive.write(image, "folder/some.IMG")
    else:
        tool("qemu-img", "convert", "-O", "qcow2", image, target)
    return target


KINDS = ["raw", "xz", "gz", "zst", "zip", "qcow2"]


@pytest.fixture(scope="module")
def packed(small_master, tmp_path_factory):
    directory = tmp_path_factory.mktemp("packed")
    return {kind: pack(kind, small_master, directory / f"{kind}.img") for kind in KINDS}


@pytest.fixture(scope="module")
def raw_digest(small_master):
    return hashlib.sha256(small_master.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_import_of_every_container(packed, small_master, tmp_path, kind, raw_digest):
    source = packed[kind]
    digest = hashlib.sha256(source.read_bytes()).hexdigest()

    imported = import_image(source, tmp_path / "out", sha256=digest.upper())

    assert image_format(source) == kind
    assert imported.source_sha256 == digest
    assert imported.table == read_table(small_master)
    assert hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest() == raw_digest
    assert allocated_bytes(tmp_path / "out") < 8 * MIB
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", KINDS)
def test_streams_give_the_raw_bytes(packed, kind, raw_digest, tmp_path):
    hasher = hashlib.sha256()
    with open_image(packed[kind], scratch=tmp_path) as stream:
        while data := stream.read(3_000_001):
            hasher.update(data)

    assert hasher.hexdigest() == raw_digest
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "part"),
    [(kind, part) for kind in KINDS for part in (0.5, 0.999) if (kind, part) != ("qcow2", 0.999)],
)
def test_truncated_sources(packed, tmp_path, kind, part):
    short = tmp_path / "short"
    tool("cp", "--sparse=always", packed[kind], short)
    short.chmod(0o644)
    os.truncate(short, int(short.stat().st_size * part))

    with pytest.raises(ImageError, match=r"`short` is (truncated|damaged)"):
        import_image(short, tmp_path / "out")

    assert [p.name for p in tmp_path.iterdir()] == ["short"]


@pytest.mark.parametrize("kind", ["xz", "gz", "zst", "zip"])
def test_flipped_bits(packed, tmp_path, kind):
    raw = bytearray(packed[kind].read_bytes())
    for at in range(len(raw) // 2, len(raw) // 2 + 50):
        raw[at] ^= 0x5A
    bad = tmp_path / "bad"
    bad.write_bytes(raw)

    with pytest.raises(ImageError, match="damaged"):
        import_image(bad, tmp_path / "out")


def test_another_digest_is_refused_before_anything_is_read(packed, tmp_path):
    with pytest.raises(VerifyError, match=f"has sha256 .*, expected {'0' * 64}"):
        import_image(packed["xz"], tmp_path / "out", sha256="0" * 64)
    with pytest.raises(ConfigError, match="64 hex digits"):
        import_image(packed["xz"], tmp_path / "out", sha256="abc")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>" * 99, "begins with `<html>not found<`"),
        (bytes(MIB), "begins with zeros"),
        (gzip.compress(b"text" * 999, mtime=0), "begins with `texttexttexttext`"),
        (lzma.compress(b""), "is empty"),
        (lzma.compress(bytes(3 * MIB)), "begins with zeros"),
        (b"BZh91AY&SY" + bytes(99), "bzip2 data; an image is `.img`"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7-Zip data"),
        (b"PK\x03\x04" + bytes(99), "truncated or damaged"),
        (b"\x1f\x8b" + bytes(99), "damaged"),
        (b"QFI\xfb\0\0\0\3" + bytes(600), "damaged"),
    ],
)
def test_what_is_no_image(tmp_path, content, words):
    source = tmp_path / "source"
    source.write_bytes(content)

    with pytest.raises(ImageError) as caught:
        import_image(source, tmp_path / "out")

    assert words in caught.value.message
    assert "partial" not in caught.value.message
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_absent_sources_and_directories(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ImageError, match="is not a file"):
            import_image(path, tmp_path / "out")


@pytest.mark.parametrize("names", [[], ["a.img", "b.img"], ["x.txt", "y.txt"]])
def test_zip_without_exactly_one_image(tmp_path, names):
    source = tmp_path / "source.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("folder/", "")
        for name in names:
            archive.writestr(name, "x")

    with pytest.raises(ImageError):
        import_image(source, tmp_path / "out")


def test_a_zip_member_named_outside_is_only_data(packed, small_master, tmp_path):
    source = tmp_path / "in" / "source.zip"
    source.parent.mkdir()
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(small_master, "../../evil.img")

    import_image(source, tmp_path / "in" / "out")

    assert not list(tmp_path.parent.glob("**/evil.img"))


def test_qcow2_that_names_other_files_is_refused(tmp_path, small_master):
    base = tmp_path / "overlay.qcow2"
    tool("qemu-img", "create", "-f", "qcow2", "-b", small_master, "-F", "raw", base)
    external = tmp_path / "external.qcow2"
    data = f"data_file={tmp_path}/data"
    tool("qemu-img", "create", "-f", "qcow2", "-o", data, external, "1M")

    for source in (base, external):
        with pytest.raises(ImageError, match="refers to another file"):
            import_image(source, tmp_path / "out")


def test_concatenated_and_padded_xz(small_master, tmp_path):
    raw = small_master.read_bytes()
    half = len(raw) // 2
    parts = [lzma.compress(part, preset=0) for part in (raw[:half], raw[half:])]
    source = tmp_path / "two.xz"
    source.write_bytes(parts[0] + bytes(8) + parts[1] + bytes(4))

    import_image(source, tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == raw


def test_a_bomb_of_xz_memory_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    raw = bytearray(lzma.compress(b"x" * 99, filters=filters))
    assert raw[12:16] == b"\x02\x00\x21\x01"
    raw[16] = 40  # a dictionary of 4 GiB
    header = bytes(raw[12:20])
    import zlib  # noqa: PLC0415 -- for this header only

    raw[20:24] = zlib.crc32(header).to_bytes(4, "little")
    source = tmp_path / "bomb.xz"
    source.write_bytes(raw)

    with pytest.raises(ImageError, match="memory"):
        import_image(source, tmp_path / "out")
