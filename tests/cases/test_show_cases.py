"""What `piimage show --explain` says of the last node of every good cluster.yaml of `clusters/`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from piimage.cli.main import app

HERE = Path(__file__).parent / "clusters"
CASES = sorted(path.name for path in HERE.iterdir() if path.is_dir())
LAST = {"four-nodes-slash-26": "3", "profiles-shadow-and-merge": "c", "every-wish": "1"}


@pytest.mark.parametrize("case", CASES)
def test_a_node_is_shown_with_the_origin_of_every_value(case, update, monkeypatch, tmp_path):
    monkeypatch.chdir(HERE / case)
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path))
    monkeypatch.setenv("PSK", "a good passphrase")
    monkeypatch.setenv("HOME", ".")

    result = CliRunner().invoke(app, ["show", LAST.get(case, "0"), "--explain"])

    assert result.exit_code == 0, result.output
    text = result.stdout.replace(str(HERE / case), "HERE")
    expected = Path("show.txt")
    if update:
        expected.write_text(text)
    assert text == expected.read_text()
    assert "a good passphrase" not in text
