from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from piimage.cli import schema, validate
from piimage.errors import ConfigError

SAMPLE = Path(__file__).parents[2] / "cluster.yaml"
WRONG = "version: 1\nname: Lab\nusers: [{name: a, uid: 1000, password: hunter2, x: 1}]\n"

app = typer.Typer()
app.command()(validate.validate)
app.command()(schema.schema)


@pytest.fixture(autouse=True)
def _no_bases(tmp_path, monkeypatch):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))


def run(*words):
    return CliRunner().invoke(app, words)


def test_a_valid_file_is_named_on_stdout_and_notes_go_to_stderr():
    result = run("validate", str(SAMPLE))

    assert result.exit_code == 0
    assert result.stdout == (f"{SAMPLE} is valid: `pico5`, 5 nodes (node0 to node4), head node0\n")
    assert result.stderr == ""

    remarkable = SAMPLE.parent / "tests/cases/clusters/every-wish/cluster.yaml"
    result = run("validate", str(remarkable))

    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "accepts the licence" in result.stderr


def test_json_of_a_valid_file():
    result = run("validate", "--json", str(SAMPLE))

    found = json.loads(result.stdout)
    assert found["ok"] is True
    assert found["cluster"]["name"] == "pico5"
    assert found["cluster"]["nodes"][3]["address"] == "10.1.10.243/24"
    assert {entry["severity"] for entry in found["diagnostics"]} <= {"note"}


def test_json_of_a_wrong_file(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(WRONG)

    result = run("validate", "--json", str(path))

    found = json.loads(result.stdout)
    assert result.exit_code == 2
    assert found["ok"] is False
    assert found["cluster"] is None
    assert {entry["line"] for entry in found["diagnostics"]} == {1, 2, 3}
    assert "hunter2" not in result.stdout


def test_a_wrong_file_is_left_to_main(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(WRONG)

    result = run("validate", str(path))

    assert isinstance(result.exception, ConfigError)
    assert result.stdout == ""


def test_the_default_is_cluster_yaml_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = run("validate")

    assert isinstance(result.exception, ConfigError)
    assert result.exception.diagnostics[0].file == "cluster.yaml"


@pytest.mark.parametrize("words", [("schema",)])
def test_schema_prints_json(words):
    assert json.loads(run(*words).stdout)["title"] == "cluster.yaml"


def test_a_base_that_is_in_no_catalog(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(SAMPLE.read_text().replace("base: debian-13", "base: debain-13"))

    result = run("validate", str(path))

    (found,) = [one for one in result.exception.diagnostics if one.code == "unknown-base"]
    assert found.hint == "did you mean `debian-13`?"
