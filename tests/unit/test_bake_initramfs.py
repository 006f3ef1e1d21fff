"""The initramfs: an archive that Linux reads, with modules in an order in which they load."""

from __future__ import annotations

import lzma
import shutil
import stat
import subprocess
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.bake.initramfs import initramfs, loading_order
from piimage.bake.kernel import Kernel
from piimage.errors import ToolFailedError

DEPENDENCIES = {
    "kernel/fs/ext4/ext4.ko.xz": "kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz",
    "kernel/fs/jbd2/jbd2.ko.xz": "",
    "kernel/fs/mbcache.ko.xz": "",
    "kernel/lib/crc16.ko.xz": "",
    "kernel/drivers/block/virtio_blk.ko": "",
    "kernel/crypto/xor.ko.xz": "kernel/arch/arm64/lib/xor-neon.ko.xz",
    "kernel/arch/arm64/lib/xor-neon.ko.xz": "",
    "kernel/fs/btrfs/btrfs.ko.xz": "kernel/crypto/xor.ko.xz kernel/arch/arm64/lib/xor-neon.ko.xz",
}


def make_kernel(home, dependencies=DEPENDENCIES, builtin=("kernel/drivers/virtio/virtio_pci.ko",)):
    modules = home / "modules"
    modules.mkdir(parents=True)
    for path in dependencies:
        place = modules / path
        place.parent.mkdir(parents=True, exist_ok=True)
        content = f"module {path}".encode()
        place.write_bytes(lzma.compress(content) if path.endswith(".xz") else content)
    lines = "".join(f"{path}: {needs}\n" for path, needs in dependencies.items())
    (modules / "modules.dep").write_text(lines)
    (modules / "modules.builtin").write_text("".join(f"{path}\n" for path in builtin))
    (home / "busybox").write_bytes(b"\x7fELF busybox")
    (home / "vmlinuz").write_bytes(b"kernel")
    return Kernel(
        version="6.1-test",
        image=home / "vmlinuz",
        modules=modules,
        busybox=home / "busybox",
        packages={},
    )


@pytest.fixture
def kernel(tmp_path):
    return make_kernel(tmp_path)


def read(archive):
    """`{name: (mode, content, device)}` in order, as Documentation/driver-api/early-userspace says."""
    found, at = {}, 0
    while True:
        header = archive[at : at + 110]
        assert header[:6] == b"070701"
        numbers = [int(header[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = -(-(at + 110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[start : start + size], tuple(numbers[9:11]))
        at = -(-(start + size) // 4) * 4


def test_what_init_finds(kernel):
    found = read(initramfs(kernel, ["virtio_blk", "ext4"], {"init": b"#!/bin/busybox sh\n"}))

    assert found["init"] == (stat.S_IFREG | 0o755, b"#!/bin/busybox sh\n", (0, 0))
    assert found["bin/busybox"][1] == b"\x7fELF busybox"
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    modules = {name: content for name, (_, content, _) in found.items() if name.endswith(".ko")}
    assert list(modules) == sorted(modules)  # `init` loads them in the order of a glob
    assert list(modules) == [
        "modules/000-virtio_blk.ko", "modules/001-jbd2.ko", "modules/002-mbcache.ko",
        "modules/003-crc16.ko", "modules/004-ext4.ko",
    ]  # fmt: skip
    assert modules["modules/004-ext4.ko"] == b"module kernel/fs/ext4/ext4.ko.xz"


@pytest.mark.skipif(not shutil.which("cpio"), reason="cpio is not installed")
def test_cpio_reads_it(kernel):
    archive = initramfs(kernel, ["ext4"], {"init": b"x" * 4097, "config": b""})
    listed = subprocess.run(
        ["cpio", "--list", "--quiet"], input=archive, capture_output=True, check=True
    )
    assert listed.stdout.decode().splitlines() == list(read(archive))


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9})?", fullmatch=True), st.binary()))
def test_any_file_comes_back(tmp_path_factory, files):
    kernel = make_kernel(tmp_path_factory.mktemp("kernel"), {})
    found = read(initramfs(kernel, [], files))
    assert {n: found[n][1] for n in files} == files


def test_dashes_are_underscores_to_the_kernel(kernel):
    assert loading_order(kernel, ["virtio-blk"]) == loading_order(kernel, ["virtio_blk"])
    assert [p.name for p in loading_order(kernel, ["btrfs"])] == [
        "xor-neon.ko.xz", "xor.ko.xz", "btrfs.ko.xz",
    ]  # fmt: skip


def test_what_is_built_in_needs_no_file(kernel):
    assert loading_order(kernel, ["virtio_pci"]) == []


def test_a_module_that_is_not_there_is_named(kernel):
    with pytest.raises(ToolFailedError, match=r"Linux 6\.1-test has no module `zfs`"):
        loading_order(kernel, ["ext4", "zfs"])


def test_nothing_is_loaded_twice_or_before_what_it_needs(kernel):
    order = loading_order(kernel, ["jbd2", "ext4", "btrfs", "ext4"])
    assert len(order) == len(set(order))
    for path, needs in DEPENDENCIES.items():
        if PurePosixPath(path) in order:
            before = order[: order.index(PurePosixPath(path))]
            assert set(map(PurePosixPath, needs.split())) <= set(before)


def test_the_archive_is_the_same_each_time(kernel):
    assert initramfs(kernel, ["ext4"], {"init": b"i"}) == initramfs(
        kernel, ["ext4"], {"init": b"i"}
    )
