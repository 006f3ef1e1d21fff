from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from piimage.bases.record import Origin, Record
from piimage.bases.store import Store, is_path
from piimage.disk.sparse import copy_sparse, hash_file
from piimage.errors import ImageError, PiimageError

ORIGIN = Origin(kind="made", source="trixie", at="2026-01-31T12:00:00Z")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def published(store, image, name="debian-13", **options):
    with store.scratch() as scratch:
        copy_sparse(image, scratch / "raw")
        return store.publish(name, scratch / "raw", origin=ORIGIN, **options)


def facts_file(store):
    return store.root / "bases/debian-13/facts.json"


def test_a_base_that_is_published_is_found_again(store, small_master):
    made = published(store, small_master, tools={"mmdebstrap": "1.4"})

    found = Store(store.root).base("debian-13")

    assert found == made
    assert found.id == found.facts.image_id == hash_file(small_master)
    assert (found.origin, found.tools) == (ORIGIN, {"mmdebstrap": "1.4"})
    assert hash_file(found.path) == found.id


def test_the_image_is_read_only_and_the_rest_private(store, small_master):
    path = published(store, small_master).path

    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert stat.S_IMODE(facts_file(store).stat().st_mode) == 0o600
    assert stat.S_IMODE((store.root / "bases").stat().st_mode) == 0o700


def test_nothing_is_published_when_the_image_is_none(store, tmp_path):
    (tmp_path / "no.img").write_bytes(bytes(4096))

    with pytest.raises(ImageError):
        published(store, tmp_path / "no.img")

    assert list((store.root / "bases").iterdir() if (store.root / "bases").exists() else []) == []
    assert list((store.root / "scratch").iterdir()) == []


def test_a_base_replaces_the_one_of_its_name(store, small_master, small):
    published(store, small_master)
    with small.open("r+b") as file:
        file.seek(440)
        file.write(b"\1\2\3\4")

    second = published(store, small)

    assert store.base("debian-13").id == second.id == hash_file(small)
    assert second.facts.table.disk_id == "04030201"
    assert [record.name for record in store.records()] == ["debian-13"]
    assert list((store.root / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("debian-13", "run `piimage base make debian-13`"),
        ("debain-13", "did you mean `debian-13`?"),
        ("ubuntu-24.04-arm64", "run `piimage base pull ubuntu-24.04-arm64`"),
        ("fedora-4", "did you mean `fedora-4"),
        ("raspios", "did you mean `raspios-"),
        ("slackware", "`piimage base import FILE --name slackware`"),
    ],
)
def test_a_base_that_is_not_here_says_how_to_have_it(store, name, hint):
    with pytest.raises(PiimageError, match=f"base `{name}` is not here") as caught:
        store.base(name)

    assert hint in caught.value.hint
    assert caught.value.exit_code == 1


def test_facts_of_another_version_are_read_again(store, small_master):
    made = published(store, small_master)
    data = json.loads(facts_file(store).read_text())
    facts_file(store).write_text(json.dumps({**data, "version": -1, "network_stack": "old"}))

    assert store.base("debian-13").facts == made.facts
    assert json.loads(facts_file(store).read_text()) == data


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"version": 1}', "\0"])
def test_damaged_facts_are_read_again(store, small_master, text):
    made = published(store, small_master)
    facts_file(store).write_text(text)

    assert store.base("debian-13").facts == made.facts


def test_facts_of_another_image_are_not_believed(store, small_master):
    made = published(store, small_master)
    data = json.loads(facts_file(store).read_text())
    facts_file(store).write_text(json.dumps({**data, "image_id": "0" * 64}))

    assert store.base("debian-13") == made


def test_a_damaged_record_is_one_clear_error(store, small_master):
    path = published(store, small_master).path.with_name("base.json")
    path.write_text("{}")

    with pytest.raises(ImageError, match="record of base `debian-13`") as caught:
        store.base("debian-13")

    assert str(path.parent) in caught.value.hint


def test_another_users_cache_is_one_clear_error(store, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    store.directory("bases")
    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(PiimageError, match="bases`: permission denied") as caught:
        store.records()

    assert "PIIMAGE_CACHE" in caught.value.hint


def test_an_image_that_was_changed_is_refused(store, small_master):
    path = published(store, small_master).path
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(440)
        file.write(b"\1")

    with pytest.raises(ImageError, match="image of base `debian-13` was changed"):
        store.base("debian-13")


def test_a_copied_cache_is_believed_once_its_bytes_are_checked(store, small_master):
    made = published(store, small_master)
    os.utime(made.path, ns=(0, 0))

    assert store.base("debian-13") == made
    record = store.record("debian-13")
    assert record is not None
    assert record.mtime_ns == 0


def test_an_image_that_is_gone(store, small_master):
    published(store, small_master).path.unlink()

    with pytest.raises(ImageError, match="has lost its image"):
        store.base("debian-13")


def test_records_survive_json():
    record = Record(name="a", id="0" * 64, size=1, mtime_ns=2, origin=ORIGIN, tools={"a": "1"})

    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debian-13", False),
        ("raspios-13.1", False),
        ("./x", True),
        ("a/b", True),
        ("x.img", True),
        ("X.IMG.XZ", True),
        ("x.qcow2", True),
    ],
)
def test_names_and_paths(text, expected):
    assert is_path(text) is expected


def test_a_path_is_imported_once_under_a_name_of_its_content(store, small):
    first = store.base("phony.img", directory=small.parent)
    again = store.base(small)

    assert first == again
    assert first.name == f"image-{hash_file(small)[:12]}"
    assert first.origin.kind == "imported"


def test_a_path_of_an_image_that_is_here_is_that_base(store, small):
    made = published(store, small)

    assert store.base(str(small)) == made


def test_an_address_without_a_digest_is_not_fetched(store):
    with pytest.raises(PiimageError, match="needs the digest"):
        store.base("https://example.org/x.img.xz")


def test_an_address_of_an_image_that_is_here_is_not_asked(store, small):
    base = store.base(small)

    assert store.base("https://example.invalid/x.img", sha256=base.id).name == base.name
