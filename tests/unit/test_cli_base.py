from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
from typer.testing import CliRunner

from piimage.bases.store import Store
from piimage.cli.base import app
from piimage.disk.sparse import hash_file
from piimage.errors import PiimageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def run(*argv):
    result = CliRunner().invoke(app, [str(word) for word in argv])
    if isinstance(result.exception, PiimageError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_list_shows_what_is_here_and_what_can_be_made_or_pulled(small):
    run("import", small)

    head, *lines = (line.split() for line in run("list").stdout.splitlines())

    assert head == ["NAME", "HOW", "HERE", "SIZE", "ID", "DESCRIPTION"]
    assert ["debian-13", "make", "no"] in [line[:3] for line in lines]
    assert ["phony", "imported", "yes"] in [line[:3] for line in lines]
    assert ["raspios-trixie-arm64-lite", "pull", "no"] in [line[:3] for line in lines]


def test_list_of_an_empty_cache_makes_none(cache):
    run("list", "--json")

    assert not cache.exists()


def test_list_as_json(small):
    run("import", small, "--name", "mine")

    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}

    assert rows["mine"]["id"] == hash_file(small)
    assert rows["mine"]["size"] == small.stat().st_size
    assert (rows["debian-13"]["present"], rows["debian-13"]["id"]) == (False, None)


def test_import_prints_data_on_stdout_and_steps_on_stderr(small):
    result = run("import", small, "--json")

    assert json.loads(result.stdout)["name"] == "phony"
    assert "importing phony.img" in result.stderr


def test_show(small):
    run("import", small)

    shown = dict(line.split(None, 1) for line in run("show", "phony").stdout.splitlines())

    assert shown["system"] == "Debian GNU/Linux 13 (trixie)"
    assert shown["network"] == "netplan-networkd"
    assert shown["partitions"] == "1 vfat 4.0 MiB on /boot/firmware, 2 ext4 12.0 MiB on /"


def test_show_as_json_holds_no_content_of_files(small):
    run("import", small)

    output = run("show", "phony", "--json").stdout

    assert json.loads(output)["packages"]["cloud-init"] == "25.1.4-1"
    assert "20300" not in output  # a field of /etc/shadow
    assert "files" not in json.loads(output)


def test_a_base_that_is_not_here():
    with pytest.raises(PiimageError, match="base `debian-13` is not here"):
        run("show", "debian-13")


def test_make_of_an_unknown_name_says_what_can_be_made():
    with pytest.raises(PiimageError, match="`debian-7` is not a base that can be made") as caught:
        run("make", "debian-7")

    assert "`debian-13`" in caught.value.hint


def test_make_hands_over_to_the_maker(small, monkeypatch):
    asked = []

    def make(name, *, store, progress, force):
        asked.append((name, type(store), force))
        return store.base(small)

    maker = ModuleType("piimage.bases.make")
    vars(maker)["make"] = make
    monkeypatch.setitem(sys.modules, "piimage.bases.make", maker)

    result = run("make", "debian-13", "--force")

    assert asked == [("debian-13", Store, True)]
    assert "image-" in result.stdout


def test_remove_takes_a_base_away_and_names_the_others_for_one_that_is_not_here(small, cache):
    run("import", small, "--name", "mine")
    run("import", small, "--name", "other")

    assert run("remove", "mine").stdout == "removed base `mine`\n"

    assert [path.name for path in (cache / "bases").iterdir()] == ["other"]
    with pytest.raises(PiimageError, match="base `mine` is not here") as caught:
        run("remove", "mine")
    assert caught.value.hint == "these are: `other`"
