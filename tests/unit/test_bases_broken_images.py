"""Images that cannot be a base: each is refused by `base import` with what is wrong, and nothing of it stays."""

from __future__ import annotations

import hashlib
import os
import struct

import pytest
from phony import BOOT_START, MIB, SMALL_ROOT_START
from typer.testing import CliRunner

from piimage.cli.base import app
from piimage.errors import PiimageError

GUID = bytes.fromhex("a2a0d0ebe5b9334487c068b6b72699c7")


def truncated(image):
    os.truncate(image, SMALL_ROOT_START + MIB)


def foreign_boot_sector(image):
    put(image, 0, b"\xeb\x52\x90NTFS    ".ljust(510, b"\0") + b"\x55\xaa")


def gpt(image):
    protective = bytes(446) + b"\0\0\2\0\xee\xff\xff\xff" + struct.pack("<II", 1, 0xFFFFFFFF)
    put(image, 0, protective.ljust(510, b"\0") + b"\x55\xaa" + b"EFI PART".ljust(512, b"\0") + GUID)


def sectors_of_4k(image):
    """The same partitions, counted in sectors eight times as large."""
    with image.open("r+b") as file:
        for at in (446 + 8, 446 + 24):
            file.seek(at)
            start, count = struct.unpack("<II", file.read(8))
            file.seek(at)
            file.write(struct.pack("<II", start // 8, count // 8))


def encrypted_root(image):
    put(image, SMALL_ROOT_START, b"LUKS\xba\xbe\0\2".ljust(4096, b"\0"))


def btrfs(image):
    """With the root in a subvolume, as Fedora's desktops have it."""
    put(image, SMALL_ROOT_START, bytes(0x10000 + 4096))
    put(image, SMALL_ROOT_START + 0x10040, b"_BHRfS_M")
    put(image, SMALL_ROOT_START + 0x1012B, b"fedora\0")


def damaged_root(image):
    put(image, SMALL_ROOT_START + 4096, b"\xa5" * MIB)


def no_firmware(image):
    put(image, BOOT_START, bytes(4 * MIB))


def put(image, at, data):
    with image.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (truncated, "is truncated: partition 2 ends at byte"),
        (foreign_boot_sector, "no partition table: `phony.img` is one NTFS file system"),
        (gpt, "GPT is not supported, only MBR"),
        (sectors_of_4k, "made for 4096-byte sectors"),
        (encrypted_root, "partition 2 of `phony.img` is encrypted (LUKS)"),
        (
            btrfs,
            "no partition holds /etc/os-release in an ext4 or xfs file system; saw: 1 vfat `bootfs`, 2 btrfs",
        ),
        (damaged_root, "no partition holds /etc/os-release"),
        (no_firmware, "no FAT partition holds the Raspberry Pi's firmware"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_it_is_refused_and_nothing_stays(harm, words, small, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("PIIMAGE_CACHE", str(cache))
    harm(small)
    before = hashlib.sha256(small.read_bytes()).hexdigest()

    said = CliRunner().invoke(app, ["import", str(small), "--name", "vendor"])

    assert isinstance(said.exception, PiimageError)
    assert words in said.exception.message
    assert said.exception.exit_code != 0
    assert hashlib.sha256(small.read_bytes()).hexdigest() == before
    left = [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert left == []
