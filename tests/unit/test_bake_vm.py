"""The engine `vm` with a program of ours as QEMU: what it is given, what each way to end is called."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from test_bake_initramfs import make_kernel, read

from piimage.bake import kernel, vm
from piimage.bake.engine import Job
from piimage.bake.vm import VmEngine
from piimage.bases.cache import Cache
from piimage.emulator import Accel
from piimage.errors import (
    ImageError,
    MissingToolError,
    ToolFailedError,
    UnsupportedError,
    WriteFailedError,
)
from piimage.facts import Filesystem, Partition
from piimage.progress import Quiet

pytestmark = pytest.mark.processes

EXT4, VFAT = Filesystem(type="ext4"), Filesystem(type="vfat")
ROOT = Partition(number=2, start=1 << 20, size=4 << 20, type="83", filesystem=EXT4)
FIRMWARE = Partition(number=1, start=5 << 20, size=4 << 20, type="c", filesystem=VFAT)
MODULES = {
    f"kernel/{name}.ko": ""
    for name in (
        "virtio_blk",
        "crc32c_generic",
        "ext4",
        "xfs",
        "vfat",
        "nls_cp437",
        "nls_ascii",
        "nls_utf8",
    )
}
#: What a QEMU of ours knows of its command line, as shell variables.
PLAYED = r"""#!{python}
import json, os, re, sys, subprocess
words = sys.argv[1:]
paths = {{m[1]: m[2] for m in (re.search(r"id=(\w+),.*(?:path|file)=(.*)", w) for w in words) if m}}
json.dump(words, open("{home}/argv", "w"))
open("{home}/pid", "w").write(str(os.getpid()))
if "-initrd" in words:
    data = open(words[words.index("-initrd") + 1], "rb").read()
    open("{home}/initramfs", "wb").write(data)
os.environ.update(paths)
os.execv("/bin/sh", ["sh", "-c", open("{home}/body").read()])
"""


@pytest.fixture
def played(tmp_path, monkeypatch):
    """A kernel in the cache, and a QEMU whose body is shell: `$said`, `$ended`, `$console` are where it writes."""
    directory = tmp_path / "bin"
    directory.mkdir()
    tool = directory / "qemu-system-aarch64"
    tool.write_text(PLAYED.format(python=sys.executable, home=tmp_path))
    tool.chmod(0o755)
    (directory / "apt-get").symlink_to("/bin/true")  # whose archive decides where the kernel is
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    cache = Cache(tmp_path / "cache")
    place = kernel._place(cache, kernel.SUITE)
    place.mkdir(parents=True)
    found = make_kernel(tmp_path / "kernel", MODULES)
    version = found.version
    (place / "usr/lib/modules").mkdir(parents=True)
    found.modules.rename(place / "usr/lib/modules" / version)
    for name in ("vmlinuz", "busybox"):
        (tmp_path / "kernel" / name).rename(place / name)
    (place / "kernel.json").write_text(json.dumps({"version": version, "packages": {}}))
    monkeypatch.setattr(vm, "_PAUSE", 0.02)
    image = tmp_path / "image.img"
    with image.open("wb") as file:
        file.truncate(FIRMWARE.start + FIRMWARE.size)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-E", f"offset={ROOT.start}", image, f"{ROOT.size >> 10}k"],
        check=True,
    )
    (tmp_path / "scratch").mkdir()

    class Played:
        home = tmp_path

        def run(self, body, progress=None, *, accel=None, stall=30, limit=30, **changes):
            (tmp_path / "body").write_text(body)
            values = {
                "image": image, "root": ROOT, "architecture": "arm64", "script": b"echo hello\n",
                "log": tmp_path / "log", "scratch": tmp_path / "scratch",
            }  # fmt: skip
            job = Job(**{**values, **changes})
            shutil.rmtree(job.scratch)
            job.scratch.mkdir()
            accel = accel or Accel("tcg", "cortex-a57")
            VmEngine(cache=cache, accel=accel, stall=stall, limit=limit).run(
                job, progress or Quiet()
            )

        @property
        def argv(self):
            return json.loads((tmp_path / "argv").read_text())

        @property
        def initramfs(self):
            return {n: c for n, (_, c, _) in read((tmp_path / "initramfs").read_bytes()).items()}

    return Played()


WELL = "echo 'Setting up hello (1.0) ...' >$said; echo 'status 0' >$ended"


def option(argv, name):
    return argv[argv.index(name) + 1]


def test_what_the_script_says_is_kept(played):
    played.run(WELL)
    assert (played.home / "log").read_text() == "Setting up hello (1.0) ...\n"


class Show(Quiet):
    """A `Progress` and its steps, which keeps what they note."""

    def __init__(self):
        self.notes = []

    def step(self, title):
        return nullcontext(self)

    def total(self, amount):
        pass

    def advance(self, amount):
        pass

    def note(self, text):
        self.notes.append(text)


def test_packages_are_shown_as_they_are_set_up(played):
    show = Show()
    body = "printf 'Setting up a' >$said; sleep 0.1; printf 'b (1)\\n' >>$said; echo 'status 0' >$ended"
    played.run(body, show)
    assert show.notes == ["Setting up ab"]


def test_the_machine_has_two_disks_and_no_network(played):
    played.run(WELL)
    argv = played.argv

    drives = [word for word in argv if word.startswith("if=none")]
    assert len(drives) == 2
    assert drives[0].endswith("image.img")
    assert "format=raw" in drives[0]
    assert "readonly=on" in drives[1]
    devices = [argv[i + 1].split(",")[0] for i, word in enumerate(argv) if word == "-device"]
    assert sorted(set(devices)) == ["virtio-blk-pci", "virtio-serial-pci", "virtserialport"]
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert not [word for word in argv if "net" in word]
    assert option(argv, "-cpu") == "cortex-a57"
    assert "max" not in argv


def test_kvm_is_used_where_there_is_one(played):
    played.run(WELL, accel=Accel("kvm", "host"))
    assert option(played.argv, "-accel") == "kvm"
    assert "gic-version=host" in option(played.argv, "-M")


def test_a_comma_in_a_path_is_no_option(played):
    place = played.home / "a,b=c"
    place.mkdir()
    image = place / "image.img"
    image.write_bytes((played.home / "image.img").read_bytes())
    played.run(WELL, image=image)
    assert any(word.endswith("a,,b=c/image.img") for word in played.argv)


def test_init_finds_script_and_configuration(played):
    with pytest.raises(ImageError, match="no FAT"):  # there is none in this image
        played.run(WELL, firmware=FIRMWARE, firmware_mount="/boot/it's firmware")

    found = played.initramfs
    assert found["script"] == b"echo hello\n"
    assert found["init"].startswith(b"#!/bin/busybox sh\n")
    shown = subprocess.run(
        ["sh", "-c", '. /dev/stdin; eval "set -- $ENVIRONMENT"; printf "%s\n" $ROOT $FIRMWARE "$FIRMWARE_MOUNT" "$@"'],
        input=found["config"], capture_output=True, check=True,
    ).stdout.decode().splitlines()  # fmt: skip
    assert shown[:3] == ["vda2", "vda1", "/boot/it's firmware"]
    assert {"LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "HOME=/root"} <= set(shown[3:])
    assert [word for word in shown if word.startswith("PATH=")]
    assert any("vfat" in name for name in found)


def test_a_logical_volume_is_a_drive_of_its_own(played):
    """The guest's kernel need not know of LVM; two drives of one file would keep each other out."""
    xfs = Filesystem(type="xfs")
    root = Partition(
        number=1001,
        start=2 << 20,
        size=3 << 20,
        type="linear",
        filesystem=xfs,
        volume="fedora/root",
    )
    with pytest.raises(ImageError):  # there is none in this image
        played.run(WELL, root=root)

    (drive,) = (word for word in played.argv if word.startswith("driver=raw,node-name=root"))
    assert {f"offset={2 << 20}", f"size={3 << 20}", "file.locking=off"} <= set(drive.split(","))
    assert any(word.startswith("virtio-blk-pci,drive=root,") for word in played.argv)
    config = played.initramfs["config"].decode().splitlines()
    assert {"ROOT=vdc", "TYPE=xfs", "OPTIONS=noatime"} <= set(config)
    assert any("xfs" in name for name in played.initramfs)


def test_both_file_systems_are_looked_at_afterwards(played):
    image = played.home / "image.img"
    place = ["--offset", str(FIRMWARE.start // 512)]
    subprocess.run(["mkfs.vfat", *place, image, str(FIRMWARE.size >> 10)], check=True)
    played.run(WELL, firmware=FIRMWARE)
    with pytest.raises(ImageError, match="FAT"):
        played.run(
            f"dd if=/dev/urandom of=$image bs=512 seek={FIRMWARE.start // 512} count=9 conv=notrunc 2>&1; {WELL}",
            firmware=FIRMWARE,
        )


def test_without_firmware_no_fat(played):
    played.run(WELL)
    assert not [name for name in played.initramfs if "vfat" in name]
    assert b"FIRMWARE=''\n" in played.initramfs["config"]


@pytest.mark.parametrize(("architecture", "words"), [("arm64", "''"), ("armhf", "linux32")])
def test_a_32_bit_guest_sees_a_32_bit_machine(played, architecture, words):
    played.run(WELL, architecture=architecture)
    assert f"PERSONALITY={words}\n".encode() in played.initramfs["config"]


def test_init_is_a_script_that_a_shell_can_read(played):
    played.run(WELL)
    subprocess.run(["sh", "-n"], input=played.initramfs["init"], check=True)


def test_packages_lie_on_a_drive(played):
    packages = []
    for number in range(3):
        path = played.home / f"p{number}_1%3a1_arm64.deb"
        path.write_bytes(os.urandom(100_000 + number))
        packages.append(path)

    played.run(f"cp $packages {played.home}/drive; {WELL}", packages=tuple(packages))

    for path in packages:
        debugfs = ["debugfs", "-R", f"cat /packages/{path.name}", played.home / "drive"]
        assert subprocess.run(debugfs, capture_output=True, check=True).stdout == path.read_bytes()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo broken >$said; echo 'status 100' >$ended", "ended with exit status 100"),
        ("echo 'failed finds no directory /tmp in the image' >$ended", "machine finds no directory /tmp"),
        ("echo 'Kernel panic - not syncing: VFS: no root' >$console", "stopped: Kernel panic - not syncing: VFS"),
        ("echo '[ 9.1] Out of memory: Killed process 7 (x)' >$console", "stopped: Out of memory: Killed process 7"),
        ("echo 'qemu: bad option' >&2; exit 1", "before the script did: qemu: bad option"),
        ("kill -9 $$", "ended before the script did"),
        ("echo 'status ' >$ended", "ended with exit status"),
        ("""echo '{"event": "BLOCK_IO_ERROR"}'; echo 'status 0' >$ended""", "errors of its disk"),
    ],
)  # fmt: skip
def test_every_other_end_is_a_failure_in_words(played, body, words):
    with pytest.raises(ToolFailedError, match=words):
        played.run(f"echo 'the last line' >$console; {body.replace('>$console', '>>$console')}")


def test_the_end_of_the_console_is_shown_without_control_characters(played):
    with pytest.raises(ToolFailedError) as caught:
        played.run("printf 'first\\n\\033[31mred\\033[0m\\n' >$console")
    assert caught.value.message.endswith("\n    first\n    red")


def test_the_hosts_full_disk_is_called_so(played):
    body = (
        """echo '{"event": "BLOCK_IO_ERROR", "data": {"nospace": true}}'; echo 'status 1' >$ended"""
    )
    with pytest.raises(WriteFailedError, match="no room left"):
        played.run(body)


def test_a_silent_machine_is_given_up(played):
    began = time.monotonic()
    with pytest.raises(ToolFailedError, match="said nothing for 1 s"):
        played.run("sleep 60", stall=1)
    assert time.monotonic() - began < 20
    assert not Path("/proc", (played.home / "pid").read_text()).exists()


def test_a_talking_machine_is_not_silent_but_has_its_limit(played):
    with pytest.raises(ToolFailedError, match="did not end within 3 s"):
        played.run("while sleep 0.1; do echo x >>$console; done", stall=2, limit=3)


def test_endless_output_is_cut(played, monkeypatch):
    monkeypatch.setattr(vm, "_MOST_OUTPUT", 1 << 16)
    with pytest.raises(ToolFailedError, match="printed more than"):
        played.run("head -c 200000 /dev/zero | tr '\\0' '\\n' >$said; sleep 60")


def test_a_file_system_that_is_damaged_afterwards_is_found(played):
    body = f"dd if=/dev/urandom of=$image bs=1024 seek={(ROOT.start >> 10) + 4} count=64 conv=notrunc 2>&1; {WELL}"
    with pytest.raises(ImageError, match=r"not clean|damaged"):
        played.run(body)


def test_what_it_cannot_serve_is_refused_before_anything_starts(played):
    other = Partition(number=2, start=0, size=1, type="83", filesystem=Filesystem(type="btrfs"))
    with pytest.raises(UnsupportedError, match="of ext4 or xfs, this one is btrfs"):
        played.run(WELL, root=other)
    with pytest.raises(UnsupportedError, match="not riscv64"):
        played.run(WELL, architecture="riscv64")
    assert not (played.home / "argv").exists()


def test_without_qemu_it_says_what_to_install(played, monkeypatch):
    (played.home / "bin/qemu-system-aarch64").unlink()
    monkeypatch.setenv("PATH", str(played.home / "bin"))
    monkeypatch.setattr("piimage.run._SBIN", ())
    with pytest.raises(MissingToolError) as caught:
        played.run(WELL)
    assert "qemu-system-arm" in caught.value.hint


def test_the_command_is_one_that_can_be_repeated(played):
    played.run(WELL)
    assert shlex.split(shlex.join(played.argv)) == played.argv
