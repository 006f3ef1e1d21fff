"""Each folder of `clusters/` is a good cluster.yaml and what it resolves to."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from pathlib import Path

import pytest

from piimage import resolve
from piimage.report import render_text

HERE = Path(__file__).parent / "clusters"
ROOT = str(Path(__file__).parents[2])
CASES = sorted(path.name for path in HERE.iterdir() if path.is_dir())
ENV = {"PSK": "a good passphrase", "HOME": "."}


def plain(value, here):
    """A resolved value as JSON, without this machine's paths and without secrets."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.repr]
        return {name: plain(getattr(value, name), here) for name in names}
    if isinstance(value, dict):
        return {key: plain(item, here) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item, here) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return (
        str(value.value if isinstance(value, Enum) else value)
        .replace(str(here), "HERE")
        .replace(ROOT, "ROOT")
    )


@pytest.mark.parametrize("case", CASES)
def test_a_good_file_resolves_as_expected(case, update, monkeypatch):
    here = HERE / case
    monkeypatch.chdir(here)
    secret = here / "secrets/ada.hash"
    if secret.exists():
        secret.chmod(0o600)  # git keeps no mode but the execute bit

    loaded = resolve.load(Path("cluster.yaml"), env=ENV)

    found = {
        "cluster": plain(loaded.cluster, here),
        "provenance": plain(dict(loaded.provenance), here),
        "told": render_text(loaded.diagnostics).replace(str(here), "HERE").splitlines(),
    }
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    expected = Path("expected.json")
    if update:
        expected.write_text(text)
    assert text == expected.read_text()
    assert "a good passphrase" not in text
