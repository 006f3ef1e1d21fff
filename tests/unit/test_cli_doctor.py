"""`piimage doctor` on machines that lack something: programs taken away, privileges refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from piimage import doctor, host
from piimage.bake import choice
from piimage.bases import namespace
from piimage.cli.main import main
from piimage.run import PACKAGES

ALL = {
    *(tool for tools in doctor.TOOLS.values() for tool in tools), *choice._VM_TOOLS,
    "qemu-aarch64-static", "newuidmap", "fuse2fs", "xfs_repair",
}  # fmt: skip


@pytest.fixture
def machine(tmp_path, monkeypatch, capsys):
    """A machine that has everything; `run` asks the doctor."""
    directory = tmp_path / "bin"
    directory.mkdir()
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "vmlinuz-6.1-test").touch()
    release = tmp_path / "os-release"
    release.write_text('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    monkeypatch.setattr(host, "_OS_RELEASE", (release,))
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("piimage.run._SBIN", ())
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(doctor, "_BOOT", boot)
    monkeypatch.setattr("piimage.disk.guestfs.installed", lambda: True)
    for name in ("SUPERMIN_KERNEL", "LIBGUESTFS_PATH"):
        monkeypatch.delenv(name, raising=False)

    class Machine:
        boot, release, place = tmp_path / "boot", tmp_path / "os-release", directory
        cache = tmp_path / "cache"

        def program(self, name, body="exit 0"):
            (directory / name).write_text(f"#!/bin/sh\n{body}\n")
            (directory / name).chmod(0o755)

        def without(self, *names):
            for name in names:
                (directory / name).unlink()

        def run(self, *words):
            monkeypatch.setattr(sys, "argv", ["piimage", "doctor", *words])
            with pytest.raises(SystemExit) as caught:
                main()
            return caught.value.code, capsys.readouterr().out

    for tool in ALL:
        Machine().program(tool)
    return Machine()


def test_a_machine_that_has_everything(machine):
    code, said = machine.run()
    assert code == 0
    assert "missing" not in said
    assert "apt-get" not in said
    rows = {line[:14].strip(): line[14:] for line in said.splitlines()}
    assert rows["bake"].startswith("chroot: root, ")
    assert rows["boot"].startswith("tcg: this machine is x86_64")
    assert rows["build"].endswith("vmlinuz-6.1-test")
    assert "free" in rows["cache"]


def test_it_leaves_no_trace(machine):
    machine.run()
    assert not machine.cache.exists()


@pytest.mark.parametrize(
    ("tool", "purpose"),
    [(tool, purpose) for purpose, tools in doctor.TOOLS.items() for tool in tools],
)
def test_a_missing_program_is_named_with_its_package(machine, tool, purpose):
    machine.without(tool)
    code, said = machine.run("--json")
    found = json.loads(said)
    assert code == 3
    assert found["ok"] is False
    lacking = {p["name"]: {lack["what"] for lack in p["lacks"]} for p in found["purposes"]}
    assert f"`{tool}`" in lacking[purpose]
    assert PACKAGES[tool] in found["install"].split()
    assert f"missing: `{tool}`" in machine.run()[1]


def test_one_command_brings_all(machine):
    machine.without("ssh", "mmdebstrap", "qemu-system-aarch64")
    _, said = machine.run()
    last = said.splitlines()[-1]
    assert last == "next: `apt-get install mmdebstrap openssh-client qemu-system-arm`"


def test_without_binfmt_the_vm_bakes_and_that_is_well(machine):
    """Bases cannot be made then; those of others can be imported."""
    machine.program("setpriv", f"echo 'mount: permission denied' >&2; exit {namespace._NO_BINFMT}")
    code, said = machine.run("--json")
    found = json.loads(said)
    assert code == 0
    assert found["ok"] is True
    assert found["engine"]["name"] == "vm"
    assert "cannot run arm64 programs (mount: permission denied)" in found["engine"]["reason"]
    assert next(p for p in found["purposes"] if p["name"] == "make a base")["ok"] is False


def test_neither_chroot_nor_vm(machine):
    machine.without("qemu-aarch64-static", "qemu-system-aarch64")
    code, said = machine.run("--json")
    found = json.loads(said)
    assert code == 3
    assert found["engine"] is None
    bake = next(p for p in found["purposes"] if p["name"] == "bake")
    assert {lack["program"] for lack in bake["lacks"]} == {
        "qemu-aarch64-static",
        "qemu-system-aarch64",
    }
    assert {"qemu-user-static", "qemu-system-arm"} <= set(found["packages"])
    assert [engine["usable"] for engine in found["engines"]] == [False, False]


def test_no_guestfs(machine, monkeypatch):
    monkeypatch.setattr("piimage.disk.guestfs.installed", lambda: False)
    code, said = machine.run()
    assert code == 3
    assert "python3-guestfs" in said
    assert "--system-site-packages" in said


def test_no_kernel_for_the_appliance(machine):
    (machine.boot / "vmlinuz-6.1-test").unlink()
    code, said = machine.run()
    assert code == 3
    assert "linux-image-cloud-amd64" in said


def test_an_appliance_kernel_of_the_users_own(machine, monkeypatch):
    (machine.boot / "vmlinuz-6.1-test").unlink()
    monkeypatch.setenv("SUPERMIN_KERNEL", "/k")
    code, said = machine.run()
    assert code == 0
    assert "SUPERMIN_KERNEL" in said


def test_a_kernel_that_only_root_reads(machine, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may read everything
    code, said = machine.run()
    assert code == 3
    assert f"sudo chmod 0644 {machine.boot}/vmlinuz-6.1-test" in said


def test_little_room_is_said(machine, monkeypatch):
    monkeypatch.setattr(doctor, "_free", lambda _: 1 << 30)
    code, said = machine.run()
    assert code == 0
    assert "1.0 GiB free, soon full" in said


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=ubuntu\nID_LIKE=debian\n", "apt-get install fdisk openssh-client python3-guestfs"),
        ("ID=raspbian\nID_LIKE='debian'\n", "apt-get install fdisk openssh-client python3-guestfs"),
        ("ID=fedora\n", "dnf install /usr/bin/ssh /usr/sbin/sfdisk python3-libguestfs"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n',
         "dnf install /usr/bin/ssh /usr/sbin/sfdisk python3-libguestfs"),
    ],
)  # fmt: skip
def test_the_command_is_that_of_the_distribution(machine, monkeypatch, release, command):
    machine.release.write_text(release)
    machine.without("ssh", "sfdisk")
    monkeypatch.setattr("piimage.disk.guestfs.installed", lambda: False)

    assert machine.run()[1].splitlines()[-1] == f"next: `{command}`"


@pytest.mark.parametrize("release", ["ID=arch\nPRETTY_NAME='Arch Linux'\n", "", "nonsense\n'"])
def test_a_distribution_that_we_do_not_know(machine, release):
    machine.release.write_text(release)
    machine.without("ssh")

    code, said = machine.run()

    assert code == 3
    assert said.splitlines()[-1] == "next: install what Debian has in: openssh-client"
    assert json.loads(machine.run("--json")[1])["install"] is None


def test_an_ordinary_user_is_told_to_use_sudo(machine, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    machine.without("ssh")

    assert machine.run()[1].splitlines()[-1] == "next: `sudo apt-get install openssh-client`"


def test_the_system_and_every_program(machine):
    machine.without("fuse2fs")  # root needs it for images from outside alone

    code, said = machine.run("--programs")

    assert code == 0
    assert said.startswith("system        Debian GNU/Linux 12 (bookworm)\n")
    assert f"programs      {len(ALL) - 1} of {len(ALL)} are here\n" in said
    assert f"{'':14}fuse2fs: not here\n" in said
    assert f"{'':14}ssh: {machine.place}/ssh\n" in said


def test_the_engine_that_was_not_chosen_is_told_too(machine):
    assert f"{'':14}vm: works too\n" in machine.run()[1]

    machine.without("depmod")

    code, said = machine.run()
    assert code == 0
    assert f"{'':14}vm: `depmod` is not installed\n" in said


def test_memory_decides_how_many_nodes_boot(machine, monkeypatch):
    monkeypatch.setattr("piimage.boot.memory.available", lambda: 512 + 3 * (512 + 64 + 256))
    assert "memory for 3 nodes at once" in machine.run()[1]

    monkeypatch.setattr("piimage.boot.memory.available", lambda: 600)
    code, said = machine.run()
    assert code == 3
    assert "missing: memory for a node (end other programs)" in said


@pytest.mark.processes
def test_this_very_machine_with_its_tools_taken_away(tmp_path):
    """A real process and a real PATH; what lies in sbin directories is found without it."""
    environment = {**os.environ, "PATH": str(tmp_path), "PIIMAGE_CACHE": str(tmp_path / "cache")}
    argv = [sys.executable, "-m", "piimage", "doctor", "--json"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    found = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert found["ok"] is False
    assert found["engine"] is None
    assert found["programs"]["qemu-img"] is None
    assert {"mmdebstrap", "qemu-utils", "qemu-system-arm", "mtools"} <= set(found["packages"])
    assert list(tmp_path.iterdir()) == []
