"""`piimage lock` for a cluster that its base has everything for."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from piimage.bake import lock
from piimage.bases.importing import import_base
from piimage.bases.store import Store
from piimage.cli.main import app
from piimage.progress import Quiet

YAML = """\
version: 1
name: abacus
base: phony
users: [{name: ada, uid: 1000, rename_from: auto}]
network: {wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}}
nodes: {count: 1, name: "node{n}", head: 0}
"""


@pytest.fixture
def piimage(tmp_path, monkeypatch, small_master):
    cache = tmp_path / "cache"
    import_base(small_master, store=Store(cache), progress=Quiet(), name="phony")
    monkeypatch.setenv("PIIMAGE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text(YAML)
    return lambda *words: CliRunner().invoke(app, [*words])


def test_that_nothing_is_wanted_is_kept_too(piimage, tmp_path):
    """Whoever hands the lock on, from one job of a pipeline to the next, has a file to hand on."""
    done = piimage("lock")

    assert done.exit_code == 0, done.output
    assert "no packages beyond its bases', and `cluster.lock` says so" in done.output
    assert lock.read(tmp_path / "cluster.lock") == lock.Lock()
    again = piimage("lock", "--json")
    assert json.loads(again.stdout) == {"layers": []}
