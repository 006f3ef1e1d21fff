"""What integration tests share: each launch of the appliance takes up to a minute without KVM, so there are few.

test_vendor_bases.py has one for each vendor's image. Of the others one applies a hand-made Delta and a whole plan
to an image like Raspberry Pi OS (`applied`), one fills a disk, two make the variants of a cluster of 64 nodes
(`built`), and one makes one of these anew, elsewhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
from factory import Built, factory_at, files
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
    boot = {"vmlinuz": b"kernel", "initrd.img": b"initramfs"}
    path = make_phony(tmp_path_factory.mktemp("base") / "phony.img", boot=boot)
    path.chmod(0o444)
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, launches: Launches, base_file: Path) -> Built:
    """`build --all`, killed once while the appliance starts, and then again in peace."""
    factory = factory_at(tmp_path_factory.mktemp("factory"), launches)
    factory.run("base", "import", base_file, "--name", "phony")
    planned, _ = factory.run("plan", "--node", "7", "--json")
    before = launches.count()
    child = factory.start("build", "--all")
    deadline = time.monotonic() + 120
    while launches.count() == before and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    left = files(factory.dist) if factory.dist.exists() else []
    left += [str(p) for p in (factory.cache / "variants").glob("*")]
    before = launches.count()
    said, told = factory.run("build", "--all")
    return Built(factory, said, told, launches.count() - before, left, planned)
