"""An appliance that does not start: no launch is spent here, its QEMU fails at once."""

from __future__ import annotations

import os
import sys

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
