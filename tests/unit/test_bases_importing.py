from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phony import SMALL_ROOT_START

from piimage.bases.cache import check_name
from piimage.bases.importing import import_base, name_of
from piimage.bases.store import Store
from piimage.disk.sparse import hash_file
from piimage.errors import ImageError, PiimageError, VerifyError
from piimage.progress import Quiet


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def bring(store, path, **options):
    return import_base(path, store=store, progress=Quiet(), **options)


def changed(path):
    with path.open("r+b") as file:
        file.seek(440)
        file.write(b"\1\2\3\4")


def empty(directory):
    return not directory.exists() or not list(directory.iterdir())


def test_an_image_becomes_a_base_named_after_its_file(store, small):
    base = bring(store, small)

    assert base.name == "phony"
    assert base.id == hash_file(base.path) == hash_file(small)
    assert (base.origin.kind, base.origin.source) == ("imported", "phony.img")
    assert base.facts.os.id == "debian"
    assert store.base("phony") == base


def test_the_source_is_not_modified(store, small):
    before = (hash_file(small), small.stat().st_mtime_ns)

    bring(store, small)

    assert (hash_file(small), small.stat().st_mtime_ns) == before


@pytest.mark.parametrize("kind", ["xz", "gz", "zip", "zst"])
def test_compressed_images_give_the_same_base(store, small, kind):
    packed = small.with_name(f"2026-01-01-Some_Image.img.{kind}")
    if kind == "gz":
        with small.open("rb") as source, gzip.open(packed, "wb", 1) as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    elif kind == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(small, "some.img")
    else:
        tool = {"xz": ["xz", "-0"], "zst": ["zstd", "-q", "-1"]}[kind]
        with packed.open("wb") as sink:
            subprocess.run([*tool, "-c", str(small)], stdout=sink, check=True)

    base = bring(store, packed)

    assert base.id == hash_file(small)
    assert base.name == "2026-01-01-some_image"
    assert base.origin.sha256 == hash_file(packed)


def test_the_same_file_again_is_no_work(store, small, monkeypatch):
    first = bring(store, small)
    monkeypatch.setattr("piimage.bases.importing.import_image", None)

    assert bring(store, small) == first
    assert bring(store, small, sha256=hash_file(small)) == first


def test_the_same_file_under_a_second_name(store, small):
    first, second = bring(store, small), bring(store, small, name="mine")

    assert (first.name, second.name) == ("phony", "mine")
    assert first.id == second.id
    assert first.path != second.path


def test_a_file_that_changed_is_another_image(store, small):
    first = bring(store, small)
    changed(small)

    with pytest.raises(PiimageError, match="base `phony` is another image") as caught:
        bring(store, small)

    assert "--name" in caught.value.hint
    assert store.base("phony") == first
    assert bring(store, small, name="second").facts.table.disk_id == "04030201"


@pytest.mark.parametrize("upper", [False, True])
def test_the_right_sha256(store, small, upper):
    digest = hash_file(small)

    assert bring(store, small, sha256=digest.upper() if upper else digest).id == digest


def test_the_wrong_sha256_leaves_nothing(store, small):
    wrong = hashlib.sha256(b"").hexdigest()

    with pytest.raises(VerifyError, match=f"expected {wrong}"):
        bring(store, small, sha256=wrong)

    assert store.records() == []
    assert empty(store.root / "scratch")


def test_the_wrong_sha256_is_noticed_for_a_known_file_too(store, small):
    bring(store, small)

    with pytest.raises(VerifyError):
        bring(store, small, sha256="0" * 64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (bytes(1 << 20), "begins with zeros"),
        (b"hello\n" * 500, "no partition table"),
        (b"\xfd7zXZ\0" + bytes(100), "damaged"),
    ],
    ids=["empty", "zeros", "text", "xz"],
)
def test_what_is_no_image(store, tmp_path, data, message):
    (tmp_path / "x.img").write_bytes(data)

    with pytest.raises(ImageError, match=message):
        bring(store, tmp_path / "x.img")

    assert store.records() == []
    assert empty(store.root / "scratch")


def test_a_file_that_is_not_there(store, tmp_path):
    with pytest.raises(ImageError, match="there is no file"):
        bring(store, tmp_path / "no.img")


def test_a_directory(store, tmp_path):
    with pytest.raises(ImageError, match="is not a file"):
        bring(store, tmp_path)


def test_an_image_that_cannot_be_used_is_named_and_leaves_nothing(store, small):
    with small.open("r+b") as file:
        file.seek(SMALL_ROOT_START + 1080)
        file.write(b"\0\0")

    with pytest.raises(PiimageError, match="no partition holds /etc/os-release"):
        bring(store, small)

    assert store.records() == []
    assert empty(store.root / "scratch")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("2025-10-01-raspios-trixie-arm64-lite.img.xz", "2025-10-01-raspios-trixie-arm64-lite"),
        ("ubuntu-24.04.3-preinstalled-server-arm64+raspi.img.xz",
            "ubuntu-24.04.3-preinstalled-server-arm64+raspi"),
        ("My Image (1).ZIP", "my-image-1-"),
        (".img", "img"),
        ("日本.img", "image"),
    ],
)  # fmt: skip
def test_names_after_files(file, name):
    assert name_of(Path(file)) == name


@given(st.text(min_size=1).filter(lambda s: "/" not in s and "\0" not in s))
def test_every_file_has_a_name(file):
    check_name(name_of(Path("/x") / file))


def test_a_name_that_is_none_is_told_before_the_image_is_unpacked(store, tmp_path):
    image = tmp_path / "no-image.img"
    image.write_bytes(b"not read")

    with pytest.raises(PiimageError, match=r"`\.\./x` is not a name for a base"):
        bring(store, image, name="../x")
