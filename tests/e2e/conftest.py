"""The default base, and node 3 of the sample built from it: once for all end-to-end tests, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def piimage():
    """Run the command line as a user would; `stderr` is kept apart, for pytest to show when a test fails.

    `cache` is for what is not to be found among the bases of whoever runs the tests.
    """

    def run(*words, timeout=3600, cache=None):
        argv = [sys.executable, "-m", "piimage", *map(str, words)]
        env = {**os.environ, "PIIMAGE_CACHE": str(cache)} if cache else None
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=REPOSITORY,
            env=env,
        )
        sys.stderr.write(done.stderr)
        return done

    return run


@pytest.fixture(scope="session")
def default_base(piimage):
    """Make the default base unless it is in the cache, which is where a user's would be."""
    listed = json.loads(piimage("base", "list", "--json").stdout)
    if not any(row["name"] == "debian-13" and row["present"] for row in listed):
        assert piimage("base", "make", "debian-13").returncode == 0
    return "debian-13"


@pytest.fixture(scope="session")
def sample(tmp_path_factory, default_base, piimage):
    """A copy of the sample cluster.yaml, with a state and node 3's image beside it."""
    source = tmp_path_factory.mktemp("sample") / "cluster.yaml"
    shutil.copy(REPOSITORY / "cluster.yaml", source)
    assert piimage("build", source, "--node", "3").returncode == 0
    return source


@pytest.fixture(scope="session")
def artifacts(sample):
    """The directory that holds node 3's image."""
    return sample.parent / "dist" / "pico5"
