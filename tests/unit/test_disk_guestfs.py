"""Signals during calls of libguestfs; a handle of ours plays it, and loses exceptions as its binding does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from piimage.disk import guestfs, watchdog
from piimage.disk.guestfs import Appliance
from piimage.errors import (
    ImageError,
    MissingToolError,
    ToolFailedError,
    UnsupportedError,
    WriteFailedError,
)
from piimage.facts import Filesystem, Partition
from piimage.progress import Quiet


class Handle:
    """Sends `number` to this process in the middle of the call `when`."""

    def __init__(self, number=0, when=""):
        self.number, self.when = number, when
        self.callbacks = []
        self.lost = []
        self.closed = False
        self.qemu = subprocess.Popen(["sleep", "60"])

    def __getattr__(self, name):
        def call(*_args, **_kwargs):
            return 0 if name != self.when else self.interrupted()

        return call

    def set_event_callback(self, callback, _events):
        self.callbacks.append(callback)

    def interrupted(self):
        os.kill(os.getpid(), self.number)
        for callback in self.callbacks:
            try:
                callback(0, 0, "booting", [0, 0, 1, 2])
            except BaseException as error:  # noqa: BLE001 -- the binding prints and goes on
                self.lost.append(error)
        self.qemu.wait(10)
        raise RuntimeError("guestfs_launch failed")

    def get_pid(self):
        return self.qemu.pid

    def debug(self, *_):
        return "0"

    def close(self):
        self.closed = True
        self.qemu.kill()
        self.qemu.wait()


@pytest.fixture
def handle(monkeypatch, tmp_path):
    made = []

    def prepare(number, when):
        def new(**_):
            made.append(Handle(number, when))
            return made[-1]

        module = SimpleNamespace(
            GuestFS=new, EVENT_APPLIANCE=1, EVENT_LIBRARY=2, EVENT_WARNING=4, EVENT_PROGRESS=8
        )
        monkeypatch.setattr(guestfs, "_module", lambda: module)
        return made

    monkeypatch.delenv("LIBGUESTFS_BACKEND_SETTINGS", raising=False)
    monkeypatch.setattr(guestfs, "_kvm_known_bad", lambda: False)
    monkeypatch.setattr(guestfs, "_kvm_mark", lambda: tmp_path / "mark")

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield prepare
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["launch", "tar_in"])
def test_an_interrupt_ends_the_appliance_and_is_not_lost(handle, tmp_path, number, when):
    made = handle(number, when)
    handlers = signal.getsignal(number)

    with (
        pytest.raises(KeyboardInterrupt),
        Appliance(tmp_path / "image", progress=Quiet()) as appliance,
    ):
        appliance.call("tar_in", "x", "/")

    assert [(one.lost, one.closed, one.qemu.returncode) for one in made] == [([], True, -9)]
    assert not (tmp_path / "mark").exists()  # KVM is not to blame
    assert signal.getsignal(number) is handlers


class Broken(Handle):
    """Does not start with KVM, and says so as bytes or text."""

    settings = None
    words = b""

    def set_backend_settings(self, settings):
        self.settings = settings

    def launch(self):
        if self.settings != ["force_tcg"]:
            self.callbacks[0](0, 0, self.words, [])
            raise RuntimeError("guestfs_launch failed")


@pytest.mark.parametrize(
    "words", [b"qemu: error: KVM internal \xff\n", "qemu: error: KVM internal\n"]
)
def test_without_a_working_kvm_it_is_emulated(handle, monkeypatch, tmp_path, words):
    handle(0, "")
    made = []

    def new(**_):
        made.append(Broken())
        made[-1].words = words
        return made[-1]

    monkeypatch.setattr(guestfs._module(), "GuestFS", new)

    with Appliance(tmp_path / "image", progress=Quiet()):
        pass

    assert [one.settings for one in made] == [None, ["force_tcg"]]
    assert all(one.closed for one in made)
    assert (tmp_path / "mark").exists()

    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "mine")
    with (
        pytest.raises(ToolFailedError, match="qemu: error: KVM internal"),
        Appliance(tmp_path / "image", progress=Quiet()),
    ):
        pass


class Refused(Handle):
    """One of its two disks refuses what is written from a moment on; which one has which name is chance."""

    counts = ("0x0\n0x0\n", "0x0\n0x2\n")
    asked = 0

    def debug(self, *_):
        self.asked += 1
        return self.counts[self.asked > 1]


@pytest.mark.parametrize(
    "counts", [("0x0\n0x1\n", "0x0\n0xf\n"), ("0x0\n0x0\n", "0x2\n0x0\n")], ids=["sdb", "sda"]
)
def test_what_the_disk_did_not_take_is_told_by_whatever_name_it_has(
    counts, handle, monkeypatch, tmp_path
):
    handle(0, "")
    made = Refused()
    made.counts = counts
    monkeypatch.setattr(guestfs._module(), "GuestFS", lambda **_: made)

    with (
        pytest.raises(WriteFailedError, match="did not take all"),
        Appliance(tmp_path / "image", progress=Quiet()),
    ):
        pass

    assert made.closed


class Older(Handle):
    """Does not mount what a newer Linux made, or knows nothing of its kind at all."""

    knows, said = True, "XFS (dm-0): Superblock has unknown incompatible features (0x40) enabled."

    def feature_available(self, _names):
        return self.knows

    def debug(self, _command, words):
        return self.said if "dmesg" in words[0] else "0"

    def mount_vfs(self, *_):
        raise RuntimeError("mount: wrong fs type")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {},
            (UnsupportedError, "volume fedora/root was made by a newer Linux than this machine's"),
        ),
        ({"said": ""}, (ImageError, "wrong fs type")),
        ({"knows": False}, (MissingToolError, "the libguestfs appliance knows no xfs")),
    ],
)
def test_why_an_xfs_cannot_be_mounted_is_told(changed, told, handle, monkeypatch, tmp_path):
    handle(0, "")
    made = Older()
    for name, value in changed.items():
        setattr(made, name, value)
    monkeypatch.setattr(guestfs._module(), "GuestFS", lambda **_: made)
    xfs = Filesystem(type="xfs")
    root = Partition(
        number=1001, start=1, size=1, type="linear", filesystem=xfs, volume="fedora/root"
    )

    with (
        pytest.raises(told[0], match=told[1]),
        Appliance(tmp_path / "image", progress=Quiet()) as appliance,
    ):
        appliance.mount(root, "/")


class Standing(Broken):
    """Stands still with KVM, or in any case, until its QEMU is ended."""

    always = False

    def launch(self):
        if self.always or self.settings != ["force_tcg"]:
            self.qemu.wait(30)
            raise RuntimeError("guestfs_launch failed")


@pytest.mark.parametrize("always", [False, True])
def test_a_launch_that_stands_still_has_a_limit(handle, monkeypatch, tmp_path, always):
    handle(0, "")
    made = []

    def new(**_):
        made.append(Standing())
        made[-1].always = always
        return made[-1]

    monkeypatch.setattr(guestfs._module(), "GuestFS", new)
    monkeypatch.setattr(guestfs, "_KVM_LIMIT", 0.1)
    monkeypatch.setattr(guestfs, "_LIMIT", 0.2)
    appliance = Appliance(tmp_path / "image", progress=Quiet())

    if always:
        with pytest.raises(ToolFailedError, match="did not start: it was not up after 0 s"):
            appliance.__enter__()
    else:
        with appliance:
            pass

    assert [one.settings for one in made] == [None, ["force_tcg"]]
    assert made[0].qemu.returncode == -9
    assert (tmp_path / "mark").exists()


def test_copies_of_this_program_are_none_of_its_children():
    before = watchdog.children(threading.get_native_id())
    copy = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = subprocess.Popen(["sleep", "60"])
    try:
        assert watchdog.children(threading.get_native_id()) - before == {other.pid}
    finally:
        other.kill()
        copy.communicate(b"\n")
        other.wait()
