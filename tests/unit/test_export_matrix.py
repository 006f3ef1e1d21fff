"""`piimage matrix`: what CI makes jobs of."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from piimage.cli.main import app
from piimage.export import matrix

CLUSTER = """\
version: 1
name: lab
base: debian-13
users: [{name: ada, uid: 1000, password: "env:NOT_SET", ssh_keys: ["file:/not/there.pub"]}]
network:
  wired: {subnet: 10.1.10.0/24, first: 10.1.10.10}
"""
PLAIN = CLUSTER + "nodes: {count: 4}\n"
TWO_BASES = CLUSTER + (
    "roles: {head: {}, worker: {}}\n"
    "nodes:\n"
    "  - {name: front, role: head}\n"
    "  - {name: a}\n"
    "  - {name: b, base: raspios-trixie-arm64-lite}\n"
    "  - {name: c}\n"
)


def said(tmp_path, text, *options, code=0):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["matrix", str(path), *options])
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_variant_has_its_nodes_and_one_of_them_stands_for_all(tmp_path):
    found = json.loads(said(tmp_path, PLAIN))

    assert found == {
        "cluster": "lab",
        "variants": [
            {"variant": "head", "node": "node0", "nodes": ["node0"], "base": "debian-13"},
            {
                "variant": "worker",
                "node": "node1",
                "nodes": ["node1", "node2", "node3"],
                "base": "debian-13",
            },
        ],
    }


def test_variants_of_one_role_have_names_of_their_own(tmp_path):
    rows = json.loads(said(tmp_path, TWO_BASES))["variants"]

    assert [(r["variant"], r["node"], r["base"]) for r in rows] == [
        ("head", "front", "debian-13"),
        ("worker-1", "a", "debian-13"),
        ("worker-2", "b", "raspios-trixie-arm64-lite"),
    ]
    assert rows[1]["nodes"] == ["a", "c"]


def test_github_gets_one_line_of_strings(tmp_path):
    line = said(tmp_path, TWO_BASES, "--format", "github")

    assert line.count("\n") == 1
    rows = json.loads(line)["include"]
    assert len(rows) == 3
    assert all(isinstance(value, str) for row in rows for value in row.values())


def test_gitlab_gets_a_job_that_extends_the_template(tmp_path):
    job = yaml.safe_load(said(tmp_path, PLAIN, "--format", "gitlab"))["variants"]

    assert job["extends"] == matrix.TEMPLATE
    assert job["parallel"]["matrix"] == [
        {"PIIMAGE_VARIANT": "head", "PIIMAGE_NODE": "node0"},
        {"PIIMAGE_VARIANT": "worker", "PIIMAGE_NODE": "node1"},
    ]


@pytest.mark.parametrize("text", ["version: 2\n", PLAIN.replace("count: 4", "count: 0")])
def test_a_mistake_is_shown_as_ever(tmp_path, text):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)

    result = CliRunner().invoke(app, ["matrix", str(path)])

    assert result.exit_code != 0
    assert result.stdout == ""


def test_another_format_is_refused(tmp_path):
    said(tmp_path, PLAIN, "--format", "jenkins", code=2)
