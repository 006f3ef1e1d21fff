"""The tutorial, played: what takes neither a base nor a network, in an empty directory, with what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from test_docs_snippets import blocks, commands
from typer.testing import CliRunner

from piimage.cli.main import app

PAGE = Path(__file__).resolve().parents[2] / "docs/tutorial/first-cluster.md"
#: What waits for a base, a built image or a card; tests/integration and tests/e2e do these.
LATER = (
    "base make",
    "build",
    "verify",
    "boot",
    "flash",
    "plan",
    "doctor",
    "card",
    "export ssh-config",
    "state export",
)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A user with a key, and nothing else."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ ada@desk\n"
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "home/.ssh/id_ed25519.pub").write_text(key)
    (tmp_path / "pico").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "pico")
    return tmp_path / "pico"


def test_what_it_shows_is_what_is_said(desk):
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^    \$ piimage (.+)\n((?:    (?!\$).*\n)*)", text, re.MULTILINE)

    assert [words.split()[0] for words, _ in shown] == ["init", "validate"]
    for words, output in shown:
        result = CliRunner().invoke(app, shlex.split(words))
        assert result.exit_code == 0, result.output
        said = {line.strip() for line in result.output.splitlines()}
        assert {line.strip() for line in output.splitlines()} - {*said, "..."} == set(), words
    assert "id_ed25519.pub" in (desk / "cluster.yaml").read_text()


def test_what_needs_no_base_works_as_it_stands(desk):
    lines = commands(blocks(PAGE)) + re.findall(
        r"`(piimage (?:show|export)[^`]+)`", PAGE.read_text()
    )
    played = set()
    for line in lines:
        words = line.removeprefix("piimage ")
        if not words.startswith(LATER):
            result = CliRunner().invoke(app, shlex.split(words))
            assert result.exit_code == 0, (line, result.output)
            played.add(words.split()[0])

    assert played == {"init", "validate", "show", "export"}
    assert (desk / "dist/pico/export/pico.svg").exists()


def test_its_steps_are_those_of_a_first_cluster_in_their_order():
    """Init, validate, plan, build, verify, boot, flash: no step is left out or comes too early."""
    found = list(dict.fromkeys(line.split()[1] for line in commands(blocks(PAGE))))

    assert [name for name in found if name not in {"doctor", "base", "export"}] == [
        "init", "validate", "plan", "build", "verify", "boot", "flash", "card",
    ]  # fmt: skip
