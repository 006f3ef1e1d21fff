"""`piimage verify` as it is typed: what it says that it leaves out."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from piimage.cli.main import app

YAML = """\
version: 1
name: abacus
users: [{name: ada, uid: 1000}]
network: {wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}}
nodes: {count: 2}
"""


def test_without_a_state_it_says_what_that_leaves_out(tmp_path, monkeypatch):
    """Not secrets alone: all that is a node's own is planned with them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cluster.yaml").write_text(YAML)
    (tmp_path / "dist/abacus").mkdir(parents=True)
    manifest = {"cluster": "abacus", "nodes": {}, "variants": {}}
    (tmp_path / "dist/abacus/manifest.json").write_text(json.dumps(manifest))

    result = CliRunner().invoke(app, ["verify", "dist/abacus"])

    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("what a build would now write on each node is not compared: there is no")
