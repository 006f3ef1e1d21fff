"""The examples for CI: YAML that is whole, commands that parse, names that meet. What they do is played elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from test_docs_snippets import CI, commands, parsed

from piimage import resolve
from piimage.export import matrix

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = resolve.load(ROOT / "cluster.yaml", env={}, check_secrets=False).cluster
GITHUB, GITLAB, CHILD = (
    ROOT / "docs/how-to/ci" / f"{n}.yml" for n in ("github", "gitlab", "gitlab-variants")
)


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def scripts(path):
    """Every line of shell of an example."""
    document = read(path)
    jobs = document["jobs"].values() if "jobs" in document else document.values()
    for job in jobs:
        if isinstance(job, dict):
            yield from (step["run"] for step in job.get("steps", ()) if "run" in step)
            yield from (*job.get("before_script", ()), *job.get("script", ()))


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
def test_every_command_is_one_that_piimage_takes(path):
    lines = [line for script in scripts(path) for line in commands(script)]

    assert len(lines) >= (2 if path == GITLAB else 4)
    for line in lines:
        parsed(re.sub(r"\$\{\{.*?\}\}", "word", line))


def test_together_the_examples_do_all_that_the_issue_of_ci_is():
    for paths in ((GITHUB,), (GITLAB, CHILD)):
        text = "\n".join(line for path in paths for line in scripts(path))
        wanted = ["validate --no-secrets", "matrix --format", "build --only-variants", "--locked"]
        wanted += ["build --all --from-variants", "verify dist", "boot --all --smoke"]
        assert [words for words in wanted if words not in text] == []


def test_jobs_of_github_need_jobs_and_fields_that_are_there():
    jobs = read(GITHUB)["jobs"]
    row = matrix.github(SAMPLE)["include"][0]
    for job in jobs.values():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(jobs)
        assert set(re.findall(r"matrix\.(\w+)", str(job))) <= {*row, *jobs["validate"]["outputs"]}


def test_what_is_downloaded_was_uploaded():
    steps = [s for job in read(GITHUB)["jobs"].values() for s in job["steps"] if "uses" in s]
    given = {s["with"]["name"] for s in steps if "upload-artifact" in s["uses"]}
    taken = {
        s["with"].get("name") or s["with"]["pattern"]
        for s in steps
        if "download-artifact" in s["uses"]
    }

    assert given == {"lock", "variant-${{ matrix.variant }}", "rehearsal"}
    assert taken == {"lock", "variant-*"}


def test_nothing_with_a_key_in_it_is_kept():
    """Neither the state, nor stamps, nor images of nodes: the variants, the lock and reports."""
    document = read(GITHUB)
    paths = [
        s["with"]["path"] for job in document["jobs"].values() for s in job["steps"]
        if "upload-artifact" in s.get("uses", "")
    ]  # fmt: skip
    for path in (GITLAB, CHILD):
        for job in read(path).values():
            paths += job.get("artifacts", {}).get("paths", []) if isinstance(job, dict) else []

    assert set(paths) == {
        "cluster.lock", "dist/variants", "dist/rehearsal", "variants.yml", "dist-*/variants",
    }  # fmt: skip


def test_the_child_pipeline_is_the_template_and_the_job_that_matrix_adds():
    ((name, job),) = matrix.gitlab(SAMPLE).items()
    text = CHILD.read_text(encoding="utf-8") + f"{name}: {job}\n"
    child = yaml.safe_load(text)

    assert child[name]["extends"] == matrix.TEMPLATE
    template = child[matrix.TEMPLATE]
    assert template["stage"] in child["stages"]
    given = {variable for row in job["parallel"]["matrix"] for variable in row}
    used = set(re.findall(r"\$(PIIMAGE_(?:VARIANT|NODE))", str(template)))
    assert used == given


def test_the_page_shows_what_matrix_prints():
    page = (ROOT / "docs/how-to/ci.md").read_text(encoding="utf-8")
    shown = re.search(r"piimage matrix --format github\n    (\{.*\})\n", page)

    assert shown is not None
    assert yaml.safe_load(shown[1]) == matrix.github(SAMPLE)
