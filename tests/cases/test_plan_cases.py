"""What `piimage plan` says of the second node of every cluster.yaml of `plans/`, on a phony base."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from piimage.bases.importing import import_base
from piimage.bases.store import Store
from piimage.cli.main import app
from piimage.progress import Quiet

HERE = Path(__file__).parent / "plans"
CASES = sorted(path.name for path in HERE.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def cache(tmp_path_factory, small_master):
    root = tmp_path_factory.mktemp("cache")
    import_base(small_master, store=Store(root), progress=Quiet(), name="phony")
    return root


@pytest.mark.parametrize("case", CASES)
def test_a_plan_is_as_expected(case, update, monkeypatch, cache):
    monkeypatch.chdir(HERE / case)
    monkeypatch.setenv("PIIMAGE_CACHE", str(cache))
    monkeypatch.setenv("ADA", "correct horse")
    monkeypatch.setenv("PSK", "a good passphrase")

    result = CliRunner().invoke(app, ["plan", "--node", "1"])

    assert result.exit_code == 0, result.output
    # File systems are made anew for each run of the tests, with ids of their own.
    text = re.sub(r"\b[0-9a-f]{12}\b|\b[0-9a-f]{64}\b", "ID", result.stdout)
    expected = Path("plan.txt")
    if update:
        expected.write_text(text)
    assert text == expected.read_text()
    for secret in ("correct horse", "a good passphrase", "abcdefghijk"):
        assert secret not in result.output
