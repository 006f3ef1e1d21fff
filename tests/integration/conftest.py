"""What integration tests share: each launch of the appliance takes up to a minute without KVM, so there are four.

One applies a hand-made Delta and a whole plan to an image like Raspberry Pi OS (`applied`), one fills
a disk, two make the variants of a cluster of 64 nodes (`built`).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from phony import make_phony

UNIT = Path(__file__).parents[1] / "unit"
sys.path.insert(0, str(UNIT))  # phony_facts

#: Logs each start of the appliance, then is the real QEMU.
_WRAPPER = """#!/bin/sh
case " $* " in *" -kernel "*) echo "$$" >>{log} ;; esac
exec {qemu} "$@"
"""


@dataclass(frozen=True)
class Launches:
    """Counts starts of the appliance. A KVM that crashes costs one more, once per boot of the machine."""

    log: Path
    hypervisor: Path

    def count(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LIBGUESTFS_HV": str(self.hypervisor)}


@pytest.fixture(scope="session")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Launches:
    home = tmp_path_factory.mktemp("qemu")
    qemu = shutil.which(f"qemu-system-{os.uname().machine}") or shutil.which("kvm")
    assert qemu, "libguestfs is installed without QEMU"
    wrapper = home / "qemu"
    wrapper.write_text(_WRAPPER.format(log=home / "log", qemu=qemu))
    wrapper.chmod(0o755 | stat.S_IXUSR)
    return Launches(home / "log", wrapper)


@pytest.fixture(scope="session")
def base_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image file to import as a base."""
    path = make_phony(tmp_path_factory.mktemp("base") / "phony.img")
    path.chmod(0o444)
    return path


def tool(*argv: str | Path, stdin: bytes = b"") -> bytes:
    """Run an independent tool and return what it prints."""
    env = {
        **os.environ,
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "MTOOLS_SKIP_CHECK": "1",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [str(word) for word in argv], input=stdin, capture_output=True, env=env, check=False
    )
    assert done.returncode == 0, (argv, done.stderr.decode(errors="replace"), done.stdout[-2000:])
    return done.stdout
