"""The cache's content by kind, size and last use; what is pruned, and what never is."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from typer.testing import CliRunner

from piimage.bases import stock
from piimage.bases.cache import Cache
from piimage.cli.main import app

DAY = 86400


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    return Cache()


def put(cache, directory, name, *, days=0, size=8192):
    """A thing of the cache that was last used so many days ago."""
    home = cache.directory(directory) / name
    home.mkdir()
    (home / "image.img").write_bytes(b"x" * size)
    then = time.time() - days * DAY - 60
    os.utime(home, (then, then))
    return home


@pytest.fixture
def full(cache):
    """Each kind of thing, unused for 40 days, and a variant of today's."""
    for directory in stock.KINDS:
        put(cache, directory, f"old-{directory}", days=40)
    put(cache, "variants", "young", size=65536)
    return cache


def names(items):
    return {item.name for item in items}


def run(*argv):
    result = CliRunner().invoke(app, list(argv))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_largest_is_named_first_with_the_room_that_it_takes(full):
    first, *rest = stock.items(full)

    assert (first.kind, first.name) == ("variant", "young")
    assert 65536 <= first.size < 65536 + 3 * 4096
    assert len(rest) == len(stock.KINDS)


def test_an_empty_cache_is_listed_and_pruned_without_making_one(cache):
    assert stock.items(cache) == ()
    assert run("cache", "list").splitlines()[-1] == f"0 B in {cache.root}"
    assert run("cache", "prune") == "freed 0 B\n"
    assert not cache.root.exists()


def test_what_nobody_used_goes_and_bases_and_tools_stay(full):
    gone = names(stock.prune(full, days=30))

    assert gone == {"old-baked", "old-variants", "old-packages", "old-downloads", "old-logs"}
    assert names(stock.items(full)) == {
        "old-bases", "old-kernels", "old-native", "old-radio-kits", "young",
    }  # fmt: skip
    assert list((full.root / "scratch").iterdir()) == []


def test_tools_go_on_request_and_bases_never(full):
    stock.prune(full, days=0, tools=True)

    assert names(stock.items(full)) == {"old-bases"}


def test_use_is_remembered(full):
    full.used(full.root / "variants" / "old-variants")

    assert "old-variants" not in names(stock.prune(full, days=30))


def test_a_dry_run_takes_nothing(full):
    before = stock.items(full)

    shown = run("cache", "prune", "--dry-run")

    assert stock.items(full) == before
    assert "old-variants" in shown
    assert "40 days ago" in shown
    assert "young" not in shown
    assert shown.splitlines()[-1].startswith("would free ")


def test_json(full):
    data = json.loads(run("cache", "prune", "--json"))

    assert {item["kind"] for item in data["items"]} == {
        "baked base", "variant", "package", "download", "log",
    }  # fmt: skip
    assert json.loads(run("cache", "list", "--json"))["directory"] == str(full.root)


def test_pruning_waits_for_builds_and_builds_do_not_wait_for_each_other(full):
    pruned = threading.Event()

    def prune():
        stock.prune(full, days=30)
        pruned.set()

    with full.in_use(), full.in_use():
        threading.Thread(target=prune, daemon=True).start()
        assert not pruned.wait(0.3)
        assert (full.root / "variants" / "old-variants").exists()

    assert pruned.wait(5)
    assert not (full.root / "variants" / "old-variants").exists()
