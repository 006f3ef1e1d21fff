"""Fixtures of the unit tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from phony import MIB, SMALL_BOOT_SIZE, make_phony
from tiny_card import make_tiny

from piimage.disk.sparse import copy_sparse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def small_master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phony image that is quick to hash and to compress; nobody writes to it."""
    path = make_phony(
        tmp_path_factory.mktemp("small") / "phony.img",
        boot_size=SMALL_BOOT_SIZE,
        root_size=12 * MIB,
    )
    path.chmod(0o444)
    return path


@pytest.fixture
def small(small_master: Path, tmp_path: Path) -> Path:
    """A small phony image of the test's own."""
    path = tmp_path / "phony.img"
    copy_sparse(small_master, path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole image of five megabytes; nobody writes to it."""
    path = make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.img")
    path.chmod(0o444)
    return path
