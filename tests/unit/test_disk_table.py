"""Partition tables: what sfdisk writes, what we refuse, and what blkid says of file systems."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phony import BOOT_SIZE, BOOT_START, DISK_ID, ROOT_START, ROOT_UUID, mbr

from piimage.disk.probe import probe
from piimage.disk.table import grow_last_partition, read_table, set_disk_id, table_sectors
from piimage.disk.window import window
from piimage.errors import ImageError
from piimage.facts import Filesystem

MIB = 1 << 20


def blank(path, size=16 * MIB, head=b""):
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def sfdisk(path, script):
    subprocess.run(
        ["/usr/sbin/sfdisk", "-q", path], input=script.encode(), check=True, capture_output=True
    )


def test_reads_the_phony_image(phony_master):
    table = read_table(phony_master)

    assert (table.label, table.disk_id, table.sector_size) == ("dos", DISK_ID, 512)
    assert table.size == phony_master.stat().st_size
    boot, root = table.partitions
    assert (boot.number, boot.start, boot.size, boot.type) == (1, BOOT_START, BOOT_SIZE, "0c")
    assert boot.filesystem == Filesystem(type="vfat", label="bootfs", uuid="C0FF-EE01")
    assert root.filesystem == Filesystem(type="ext4", label="rootfs", uuid=ROOT_UUID)


def test_logical_partitions(tmp_path):
    image = blank(tmp_path / "x.img", 64 * MIB)
    sfdisk(
        image,
        "label: dos\nlabel-id: 0x12345678\nstart=2048,size=8192,type=c\n"
        "start=10240,size=100000,type=5\nstart=12288,size=4096,type=83\nstart=20480,size=4096,type=82\n",
    )

    table = read_table(image)

    found = [(p.number, p.start // 512, p.size // 512, p.type) for p in table.partitions]
    assert found == [
        (1, 2048, 8192, "0c"),
        (2, 10240, 100000, "05"),
        (5, 12288, 4096, "83"),
        (6, 20480, 4096, "82"),
    ]
    assert table.disk_id == "12345678"
    sectors = [start // 512 for start, _ in table_sectors(image)]
    assert sectors[:2] == [0, 10240]
    assert len(sectors) == 3
    with pytest.raises(ImageError, match="logical"):
        grow_last_partition(image, 128 * MIB)


def test_a_loop_of_logical_partitions(tmp_path):
    image = blank(tmp_path / "x.img", 64 * MIB)
    sfdisk(image, "label: dos\nstart=2048,size=100000,type=5\nstart=4096,size=4096\n")
    with image.open("r+b") as file:
        file.seek(2048 * 512 + 446 + 16)
        file.write(bytes([0, 0, 0, 0, 5, 0, 0, 0]) + bytes(4) + (9).to_bytes(4, "little"))

    with pytest.raises(ImageError, match="form a loop"):
        read_table(image)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "begins with zeros"),
        (b"hello world, this is a text\n" * 20, "begins with `hello world, thi`"),
        (b"\x01\x02\x03\x04" * 200, "begins with 01 02 03 04"),
        (b"QFI\xfb" + bytes(600), "qcow2"),
        (b"\xfd7zXZ\0" + bytes(600), "xz compressed"),
        (b"LUKS\xba\xbe" + bytes(600), "encrypted LUKS"),
        (bytes(510) + b"\x55\xaa", "is empty"),
        (bytes(446) + b"\x07" + bytes(63) + b"\x55\xaa", "holds no partition table"),
        (b"\xebX\x90MSDOS5.0".ljust(82) + b"FAT32   ".ljust(428) + b"\x55\xaa", "one FAT32"),
        (bytes(1080) + b"\x53\xef", "one ext2/3/4"),
        (bytes(257) + b"ustar\0", "tar archive"),
        (mbr(MIB).ljust(32769, b"\0") + b"CD001", "ISO 9660"),
    ],
)
def test_refuses_with_what_was_seen(tmp_path, head, words):
    with pytest.raises(ImageError, match=words):
        read_table(blank(tmp_path / "x.img", 2 * MIB, head))


def test_refuses_an_empty_file(tmp_path):
    with pytest.raises(ImageError, match="is empty"):
        read_table(blank(tmp_path / "x.img", 0))


def test_refuses_gpt(tmp_path):
    image = blank(tmp_path / "x.img")
    sfdisk(image, "label: gpt\nstart=2048\n")

    with pytest.raises(ImageError, match=r"GPT is not supported.*512-byte"):
        read_table(image)


def test_refuses_gpt_of_4k_sectors(tmp_path):
    image = blank(tmp_path / "x.img", head=mbr(MIB).ljust(4096, b"\0") + b"EFI PART")

    with pytest.raises(ImageError, match="4096-byte sectors"):
        read_table(image)


def test_refuses_an_mbr_of_4k_sectors(tmp_path):
    head = bytearray(mbr(MIB))
    head[446 + 8 : 446 + 16] = (256).to_bytes(4, "little") + (512).to_bytes(4, "little")
    head[462 : 462 + 16] = bytes(16)
    image = blank(tmp_path / "x.img", head=bytes(head))
    with image.open("r+b") as file:
        file.seek(256 * 4096 + 1080)
        file.write(b"\x53\xef")

    with pytest.raises(ImageError, match="made for 4096-byte sectors"):
        read_table(image)


def test_refuses_a_truncated_image(phony):
    os.truncate(phony, ROOT_START + MIB)

    with pytest.raises(ImageError, match="truncated: partition 2 ends at byte 142606336"):
        read_table(phony)


def test_refuses_luks_in_a_partition(phony):
    with phony.open("r+b") as file:
        file.seek(ROOT_START)
        file.write(b"LUKS\xba\xbe\0\2".ljust(2048, b"\0"))

    with pytest.raises(ImageError, match=r"partition 2 .* is encrypted"):
        read_table(phony)


def test_disk_id_as_the_kernel_spells_it(phony):
    before = phony.read_bytes()[:512]

    set_disk_id(phony, "DEADbeef")

    assert read_table(phony).disk_id == "deadbeef"
    after = phony.read_bytes()[:512]
    assert after[440:444] == bytes.fromhex("efbeadde")
    assert after[:440] + after[444:] == before[:440] + before[444:]
    with pytest.raises(ValueError, match="8 hex digits"):
        set_disk_id(phony, "0xdeadbeef")


def test_grow_keeps_signature_and_agrees_with_sfdisk(phony):
    table = grow_last_partition(phony, 300 * MIB)

    assert table.disk_id == DISK_ID
    assert table.partition(2).start == ROOT_START
    assert table.partition(2).size == 300 * MIB - ROOT_START
    assert phony.stat().st_size == 300 * MIB
    listed = subprocess.run(
        ["/usr/sbin/sfdisk", "-l", phony], check=True, capture_output=True, text=True
    )
    assert listed.stderr == ""
    assert "300 MiB" in listed.stdout
    with pytest.raises(ImageError, match="cannot shrink"):
        grow_last_partition(phony, 299 * MIB)


def test_probe_knows_swap(tmp_path):
    image = blank(tmp_path / "swap")
    argv = ["/usr/sbin/mkswap", "-q", "-L", "sw", "-U", ROOT_UUID, str(image)]
    subprocess.run(argv, check=True)
    with window(image) as source:
        assert probe(source) == Filesystem(type="swap", label="sw", uuid=ROOT_UUID)


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_probe_tells_the_ext_family_apart(tmp_path, kind):
    image = blank(tmp_path / "fs")
    argv = ["/usr/sbin/mke2fs", "-q", "-t", kind, "-L", "a label", "-U", ROOT_UUID, str(image)]
    subprocess.run(argv, check=True)
    with window(image) as source:
        assert probe(source) == Filesystem(type=kind, label="a label", uuid=ROOT_UUID)


@pytest.mark.parametrize(
    ("at", "data", "expected"),
    [
        (
            0,
            b"XFSB".ljust(32, b"\0") + bytes(range(16)) + bytes(60) + b"data",
            ("xfs", "data", "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ),
        (
            65536 + 32,
            bytes(range(16)) + bytes(16) + b"_BHRfS_M" + bytes(227) + b"fedora",
            ("btrfs", "fedora", "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ),
        (
            512,
            b"LABELONE".ljust(20, b"\0")
            + b"\x20\0\0\0LVM2 001"
            + b"abcdefghijklmnopqrstuvwxyz012345",
            ("LVM2_member", "", "abcdef-ghij-klmn-opqr-stuv-wxyz-012345"),
        ),
        (0, b"LUKS\xba\xbe\0\2".ljust(24, b"\0") + b"safe", ("crypto_LUKS", "safe", "")),
    ],
)
def test_probe_reads_other_superblocks(tmp_path, at, data, expected):
    image = blank(tmp_path / "fs", head=bytes(at) + data)
    with window(image) as source:
        found = probe(source)
    assert (found.type, found.label, found.uuid) == expected


def test_probe_of_nothing(tmp_path):
    for size in (0, 100, 512, MIB):
        with window(blank(tmp_path / "fs", size)) as source:
            assert probe(source) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=66, max_size=66))
def test_any_boot_sector_gives_a_table_or_an_image_error(tmp_path_factory, entries):
    image = tmp_path_factory.getbasetemp() / "any.img"
    blank(image, 4 * MIB, bytes(444) + entries[:2] + entries[2:] + b"\x55\xaa")

    try:
        table = read_table(image)
    except ImageError:
        return

    assert all(p.start + p.size <= 4 * MIB for p in table.partitions)
