"""Each folder of `errors/` is a wrong cluster.yaml and the exact text that a user sees for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from piimage import resolve
from piimage.errors import ConfigError
from piimage.report import render_text

HERE = Path(__file__).parent / "errors"
CASES = sorted(path.name for path in HERE.iterdir() if path.is_dir())
#: What the cases may ask of the environment; `PSK` is long enough, `SHORT` is not.
ENV = {"PSK": "a good passphrase", "SHORT": "hunter2", "EMPTY": "", "HOME": "/home/nobody"}
PLACE = re.compile(r"^ *--> \S+\.yaml:\d+:\d+$", re.MULTILINE)
UNPLACED = {"yaml-utf16"}


def told(case: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve.load(Path("cluster.yaml"), env=ENV)
    text = render_text(caught.value.diagnostics)
    return text.replace(str(HERE / case), "HERE") + "\n"


@pytest.mark.parametrize("case", CASES)
def test_every_mistake_is_told_with_place_and_cure(case, update, monkeypatch):
    monkeypatch.chdir(HERE / case)

    text = told(case)

    expected = Path("expected.txt")
    if update:
        expected.write_text(text)
    assert text == expected.read_text()
    assert text.startswith(("error: ", "warning: "))
    assert "error: " in text
    assert "Traceback" not in text
    assert "pydantic" not in text
    assert case in UNPLACED or PLACE.search(text)


@pytest.mark.parametrize("case", CASES)
def test_no_secret_is_shown(case, monkeypatch):
    monkeypatch.chdir(HERE / case)

    text = told(case)

    for secret in ("hunter2", "correct horse", "a good passphrase", "schlüsselbund"):
        assert secret not in text


def test_there_are_enough_cases():
    assert len(CASES) >= 60
