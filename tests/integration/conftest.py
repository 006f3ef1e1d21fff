"""What integration tests share: each launch of the appliance takes up to a minute without KVM, so there are few.

test_vendor_bases.py has one for each vendor's image. Of the others one applies a hand-made Delta and a whole plan
to an image like Raspberry Pi OS (`applied`), one fills a disk, two make the variants of a cluster of 64 nodes
(`built`).
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
from launches import WRAPPER, Launches
from phony import make_phony

UNIT = Path(__file__).parents[1] / "unit"
sys.path.insert(0, str(UNIT))  # phony_facts


@pytest.fixture(scope="session")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Launches:
    home = tmp_path_factory.mktemp("qemu")
    qemu = shutil.which(f"qemu-system-{os.uname().machine}") or shutil.which("kvm")
    assert qemu, "libguestfs is installed without QEMU"
    wrapper = home / "qemu"
    wrapper.write_text(WRAPPER.format(log=home / "log", qemu=qemu))
    wrapper.chmod(0o755 | stat.S_IXUSR)
    return Launches(home / "log", wrapper)


@pytest.fixture(scope="session")
def base_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image file to import as a base."""
    path = make_phony(tmp_path_factory.mktemp("base") / "phony.img")
    path.chmod(0o444)
    return path
