"""Fixtures that more than one test module needs."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pytest
import typer.testing
from hypothesis import settings
from phony import SMALL_BOOT_SIZE, make_phony

from piimage.disk.sparse import copy_sparse

if TYPE_CHECKING:
    from pathlib import Path

# CI tries the same examples each time, so that a red run can be had again; at a desk they are new ones. How long an
# example takes says more about the machine's other work than about ours.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# Otherwise all commands are made out of their functions anew each time one of them is asked something.
typer.testing._get_command = cache(typer.testing._get_command)


@pytest.fixture(scope="session")
def phony_master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phony image of the session; nobody writes to it."""
    path = make_phony(tmp_path_factory.mktemp("phony") / "phony.img")
    path.chmod(0o444)
    return path


@pytest.fixture(scope="session")
def small_master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller phony image, for what reads or packs all of it; nobody writes to it."""
    path = make_phony(
        tmp_path_factory.mktemp("small") / "phony.img", boot_size=SMALL_BOOT_SIZE, root_size=8 << 20
    )
    path.chmod(0o444)
    return path


@pytest.fixture
def phony(phony_master: Path, tmp_path: Path) -> Path:
    """A phony image of the test's own."""
    path = tmp_path / "phony.img"
    copy_sparse(phony_master, path)
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update", action="store_true", help="rewrite the expected files of tests/cases"
    )


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether expected files are to be rewritten instead of compared."""
    return bool(request.config.getoption("--update"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a test that was skipped has failed: nothing is proven by what did not run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("CI") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
