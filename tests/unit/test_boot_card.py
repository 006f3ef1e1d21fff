"""What a card boots, from config.txt and the names beside it."""

from __future__ import annotations

import pytest
from phony import BOOT_START, SMALL_ROOT_START

from piimage.boot.card import device_tree, extract, layout, read_card
from piimage.boot.disk import Disk
from piimage.boot.machine import DEVICE_TREES
from piimage.disk import fat
from piimage.errors import ImageError

DEBIAN = "arm_64bit=1\nkernel=vmlinuz-6.12\n# kernel=no\ninitramfs initrd.img-6.12\n[pi4]\nkernel=other\n"
DTBS = ["bcm2711-rpi-4-b.dtb", "bcm2837-rpi-3-b-plus.dtb", "bcm2837-rpi-3-b.dtb"]


def test_debian_names_kernel_and_initrd():
    names = ["/vmlinuz-6.12", "/initrd.img-6.12", "/overlays/x.dtbo", *(f"/{n}" for n in DTBS)]

    found = layout(DEBIAN, names)

    assert (found.kernel, found.initrd, found.cmdline) == (
        "vmlinuz-6.12", "initrd.img-6.12", "cmdline.txt",
    )  # fmt: skip
    assert list(found.dtbs) == DTBS


def test_raspberry_pi_os_names_neither():
    found = layout("auto_initramfs=1\n[all]\n", ["/kernel8.img", "/initramfs8", "/cmdline.txt"])

    assert (found.kernel, found.initrd) == ("kernel8.img", "initramfs8")


def test_a_prefix_holds_for_what_is_there():
    names = ["/current/vmlinuz", "/current/initrd.img", "/cmdline.txt", "/current/a.dtb"]

    found = layout(
        "[all]\nos_prefix=current/\nkernel=vmlinuz\ninitramfs initrd.img followkernel", names
    )

    assert (found.kernel, found.initrd) == ("current/vmlinuz", "current/initrd.img")
    assert found.cmdline == "cmdline.txt"


def test_no_initrd_is_fine_a_missing_one_is_not():
    assert layout("kernel=k", ["/k"]).initrd is None
    with pytest.raises(ImageError, match="no initrd `i`"):
        layout("kernel=k\ninitramfs i", ["/k"])
    with pytest.raises(ImageError, match=r"no kernel `kernel8\.img`"):
        layout("", ["/cmdline.txt"])


def test_the_device_tree_is_the_emulated_boards():
    assert device_tree(DTBS, DEVICE_TREES) == "bcm2837-rpi-3-b.dtb"
    assert (
        device_tree(["broadcom/bcm2710-rpi-3-b.dtb"], DEVICE_TREES)
        == "broadcom/bcm2710-rpi-3-b.dtb"
    )
    with pytest.raises(ImageError, match="Pi 3"):
        device_tree(DTBS[:1], DEVICE_TREES)


def test_a_card_is_read_without_an_appliance(small, tmp_path):
    fat.write_files(small, BOOT_START, {"vmlinuz": b"K" * 70_000, "initrd.img": b"I"})

    card = read_card(Disk(image=small, build=None))

    assert card.cmdline == "console=tty0 console=ttyS1,115200 root=LABEL=rootfs rw rootwait"
    assert card.machine_id == "uninitialized"
    assert (card.size, card.root_start) == (small.stat().st_size, SMALL_ROOT_START)
    assert extract(card, card.layout.kernel, tmp_path).read_bytes() == b"K" * 70_000


def test_a_card_without_a_command_line_is_refused(small):
    fat.write_files(small, BOOT_START, {"vmlinuz": b"K", "initrd.img": b"I", "cmdline.txt": b"\n"})

    with pytest.raises(ImageError, match="no kernel command line"):
        read_card(Disk(image=small, build=None))


def test_a_stamp_is_read_as_if_it_were_written(small, tmp_path):
    fat.write_files(small, BOOT_START, {"vmlinuz": b"K", "initrd.img": b"I"})
    own = {"cmdline.txt": b"root=LABEL=x node.token=3\n", "initrd.img": b"J" * 70_000}
    patches = tuple(fat.stage(small, BOOT_START, own))
    before = small.read_bytes()

    card = read_card(Disk(image=small, build=None, patches=patches))

    assert card.cmdline == "root=LABEL=x node.token=3"
    assert extract(card, "initrd.img", tmp_path).read_bytes() == b"J" * 70_000
    assert extract(card, "vmlinuz", tmp_path).read_bytes() == b"K"
    assert small.read_bytes() == before
    assert fat.read_files(small, BOOT_START, ["initrd.img"]) == {"initrd.img": b"I"}
