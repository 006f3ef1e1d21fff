"""An appliance that does not start (its QEMU fails at once), and one whose disk is full (one launch)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from piimage import errors
from piimage.disk import guestfs
from piimage.disk.guestfs import Appliance
from piimage.progress import Quiet


class Listener:
    """A `Progress` that remembers what was said."""

    def __init__(self):
        self.said = []

    def step(self, title):
        return Quiet().step(title)

    def say(self, text):
        self.said.append(text)

    warn = say


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """An image, and a QEMU that says why it cannot."""
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\necho 'qemu: error: cannot on this day' >&2\nexit 1\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("LIBGUESTFS_HV", str(qemu))
    monkeypatch.setattr(guestfs, "_kvm_mark", lambda: tmp_path / "no-kvm")
    (tmp_path / "image.img").write_bytes(bytes(1 << 20))
    return tmp_path / "image.img"


def start(image, progress):
    with Appliance(image, progress=progress):
        pytest.fail("it cannot have started")


def test_the_reason_and_a_hint(broken, monkeypatch):
    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")

    with pytest.raises(errors.ToolFailedError, match="appliance did not start: ") as caught:
        start(broken, Listener())

    assert "libguestfs-test-tool" in caught.value.hint
    assert not (broken.parent / "no-kvm").exists()


def test_kvm_is_given_up_once_and_said_so(broken, monkeypatch):
    monkeypatch.delenv("LIBGUESTFS_BACKEND_SETTINGS", raising=False)
    first, second = Listener(), Listener()

    for listener in (first, second):
        with pytest.raises(errors.ToolFailedError):
            start(broken, listener)

    usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
    assert len(first.said) == usable
    assert second.said == []


def test_without_the_python_module(broken, monkeypatch):
    monkeypatch.setitem(sys.modules, "guestfs", None)

    with pytest.raises(errors.MissingToolError, match="module `guestfs`") as caught:
        start(broken, Listener())

    assert "python3-guestfs" in caught.value.hint


FILL = """
import os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from phony import make_phony
from piimage.apply import apply
from piimage.bases.facts_reader import read_facts
from piimage.delta import Delta, File
from piimage.errors import WriteFailedError
from piimage.progress import Quiet
image = make_phony(Path(sys.argv[1], "image.img"))
facts = read_facts(image, image_id="a" * 64)
big = {f"/srv/{number}": File(os.urandom(4 << 20)) for number in range(15)}
try:
    apply(image, Delta.of("test", big), facts, Quiet())
except WriteFailedError as error:
    print(error.message, error.hint, sep="; ")
"""


def test_a_disk_that_fills_up_under_the_appliance(tmp_path):
    """QEMU would wait for room, and the guest would notice nothing of what it could not write."""
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    mount = 'mount -t tmpfs -o size=40m none "$0" && exec "$@"'
    argv = ["unshare", "--mount", *root, "--", "sh", "-c", mount, str(tmp_path)]

    done = subprocess.run(
        [*argv, sys.executable, "-c", FILL, str(tmp_path), str(Path(__file__).parents[1])],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "the disk did not take all of `image.img`: it is full or broken; free some space\n"
    )
