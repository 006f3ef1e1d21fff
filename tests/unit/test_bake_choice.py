"""Which engine bakes, with a machine's programs played by ours: setpriv starts the namespaces, or does not."""

from __future__ import annotations

import pytest

from piimage.bake import choice
from piimage.bake.choice import choose
from piimage.errors import MissingToolError, PiimageError, UnsupportedError

TOOLS = (
    "setpriv", "unshare", "newuidmap", "qemu-aarch64-static", "qemu-arm-static", "fuse2fs", "qemu-system-aarch64",
    "mke2fs", "apt-get", "dpkg-deb", "depmod",
)  # fmt: skip
REFUSED = "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with `TOOLS`; as root unless `euid` says otherwise."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr("piimage.run._SBIN", ())
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    switches = tmp_path / "sysctl"
    switches.mkdir()
    fuse = tmp_path / "fuse"
    fuse.touch()
    monkeypatch.setattr(choice, "_FUSE", fuse)
    monkeypatch.setattr(
        choice,
        "_SWITCHES",
        ((str(switches / "userns"), "0", "kernel.unprivileged_userns_clone=0"),),
    )

    class Machine:
        def program(self, name, body="exit 0"):
            (directory / name).write_text(f"#!/bin/sh\n{body}\n")
            (directory / name).chmod(0o755)

        def without(self, *names):
            for name in names:
                (directory / name).unlink()

        def user(self):
            monkeypatch.setattr("os.geteuid", lambda: 1000)

        def switch(self, value):
            (switches / "userns").write_text(f"{value}\n")

        def no_fuse(self):
            fuse.unlink()

    found = Machine()
    for tool in TOOLS:
        found.program(tool)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return found


def test_root_bakes_in_a_chroot(machine):
    chosen = choose()
    assert chosen.name == "chroot"
    assert chosen.reason.startswith("root, arm64 programs through")
    assert chosen.prefix[0] == "setpriv"


def test_a_user_with_namespaces_bakes_in_a_chroot(machine):
    machine.user()
    chosen = choose()
    assert chosen.name == "chroot"
    assert "user namespace" in chosen.reason
    assert "--map-auto" in chosen.prefix


def test_nothing_is_emulated_on_arm64(machine, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    machine.without("qemu-aarch64-static")
    assert choose().reason == "root, no emulation"


@pytest.mark.parametrize("tool", ["newuidmap", "qemu-aarch64-static", "fuse2fs"])
def test_what_a_chroot_lacks_is_the_reason_for_vm(machine, tool):
    machine.user()
    machine.without(tool)
    chosen = choose()
    assert chosen.name == "vm"
    assert chosen.reason == f"no chroot, since `{tool}` is not installed"
    assert chosen.prefix == ()


def test_namespaces_that_are_refused_are_the_reason_for_vm(machine):
    machine.user()
    machine.program("setpriv", REFUSED)
    assert choose().name == "vm"
    assert "Operation not permitted" in choose().reason
    assert "sysctl" not in choose().reason


def test_a_sysctl_that_forbids_them_is_named(machine):
    machine.user()
    machine.program("setpriv", REFUSED)
    machine.switch(1)
    assert "sysctl" not in choose().reason
    machine.switch(0)
    assert choose().reason.endswith("(sysctl kernel.unprivileged_userns_clone=0)")


def test_root_needs_fuse_only_for_images_from_outside(machine):
    machine.without("fuse2fs")
    assert choose(trusted=True).name == "chroot"
    assert choose(trusted=False).name == "vm"


def test_root_needs_user_namespaces_only_for_images_from_outside(machine):
    machine.program("unshare", REFUSED)
    assert choose(trusted=True).name == "chroot"
    chosen = choose(trusted=False)
    assert chosen.name == "vm"
    assert "in a user namespace, which is not allowed here" in chosen.reason


def test_a_machine_without_fuse_device(machine):
    machine.user()
    machine.no_fuse()
    chosen = choose()
    assert chosen.name == "vm"
    assert "no `/" in chosen.reason


def test_what_was_asked_for_is_not_replaced(machine):
    assert choose("vm").name == "vm"
    machine.program("setpriv", REFUSED)
    with pytest.raises(MissingToolError):
        choose("chroot")
    machine.without("qemu-system-aarch64")
    with pytest.raises(MissingToolError, match="qemu-system-aarch64"):
        choose("vm")


def test_when_neither_can_be_had_both_cures_are_named(machine):
    machine.user()
    machine.without("newuidmap", "qemu-system-aarch64")
    with pytest.raises(MissingToolError) as caught:
        choose()
    assert "neither in a chroot, since `newuidmap`" in caught.value.message
    assert "nor in a virtual machine, since `qemu-system-aarch64`" in caught.value.message
    assert "uidmap" in caught.value.hint
    assert "qemu-system-arm" in caught.value.hint
    assert caught.value.tools == ("newuidmap", "qemu-system-aarch64")


def test_programs_of_armhf_are_run_by_a_qemu_of_their_own(machine):
    chosen = choose(architecture="armhf")
    assert chosen.name == "chroot"
    assert chosen.reason.startswith("root, armhf programs through")
    assert any("qemu-arm-static" in word for word in chosen.prefix)
    assert not any("aarch64" in word for word in chosen.prefix)
    machine.without("qemu-arm-static")
    assert choose().name == "chroot"
    assert (
        choose(architecture="armhf").reason == "no chroot, since `qemu-arm-static` is not installed"
    )


@pytest.mark.parametrize("wanted", choice.ENGINES)
def test_other_architectures_are_refused(machine, wanted):
    with pytest.raises(
        UnsupportedError, match="into images of arm64 and armhf, this one is of riscv64"
    ):
        choose(wanted, architecture="riscv64")


def test_another_word_is_refused(machine):
    with pytest.raises(PiimageError, match="`docker` is not an engine; one of auto, chroot, vm"):
        choose("docker")


def test_what_fuse_does_not_mount_is_baked_in_a_machine_with_a_kernel(machine):
    chosen = choose(trusted=False, kind="xfs")

    assert chosen.name == "vm"
    assert "mounts the image's xfs" in chosen.reason
    with pytest.raises(MissingToolError, match="mounts the image's xfs"):
        choose("chroot", trusted=False, kind="xfs")
