"""A root file system that fills its card: what is on a dirty card afterwards, by e2fsprogs and sfdisk."""

from __future__ import annotations

import json
import lzma
import os
import subprocess

import pytest
from tiny_card import BOOT, MIB, ROOT, SLOT, dirty_card, make_build, make_tiny, tiny_patches

from piimage import artifact
from piimage.bases.cache import Cache
from piimage.disk import ext4
from piimage.disk.slots import apply_patches
from piimage.disk.sparse import copy_sparse
from piimage.disk.table import read_table
from piimage.errors import ImageError, UnsupportedError
from piimage.flash import grown as module
from piimage.flash.grown import grown
from piimage.flash.payload import open_payload
from piimage.flash.sources import open_sources
from piimage.flash.writer import write_card

CARD = 45 * MIB + 512
#: Whole multiples of 4 MiB.
END = 44 * MIB


def written(payload, path, size=CARD, mode="fresh"):
    fd = os.open(path, os.O_RDWR)
    try:
        return write_card(fd, size, payload, title="node3", delays=(), mode=mode)
    finally:
        os.close(fd)


def root_of(card, tmp_path):
    """The card's second partition, as sfdisk sees it, in a file."""
    table = json.loads(subprocess.check_output(["sfdisk", "--json", card], stderr=subprocess.PIPE))
    boot, root = table["partitiontable"]["partitions"]
    assert (boot["start"] * 512, root["start"] * 512) == (BOOT, ROOT)
    assert (root["start"] + root["size"]) * 512 == END
    part = tmp_path / "part"
    with card.open("rb") as file, part.open("wb") as out:
        file.seek(ROOT)
        out.write(file.read(END - ROOT))
    return part


def assert_grown(card, image, tmp_path):
    """The card holds what is in `image`, in a clean file system that goes on to the end."""
    part = root_of(card, tmp_path)
    check = subprocess.run(["e2fsck", "-fn", part], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout
    head = subprocess.check_output(["dumpe2fs", "-h", part], stderr=subprocess.PIPE, text=True)
    facts = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
    assert int(facts["Block count"]) * int(facts["Block size"]) == END - ROOT
    for path in ("/data", "/zeros", SLOT):
        with ext4.open_ext4(image, ROOT) as before, ext4.open_ext4(part, 0) as after:
            assert after.read_files([path]) == before.read_files([path])


@pytest.fixture
def whole(tiny, tmp_path):
    """What the card of node 3 holds when it is not grown."""
    path = tmp_path / "whole.img"
    copy_sparse(tiny, path)
    apply_patches(path, tiny_patches(tiny))
    return path


def test_the_root_fills_a_dirty_card(tiny, whole, tmp_path):
    card = dirty_card(tmp_path / "card", CARD)

    payload = grown(open_payload(tiny, tiny_patches(tiny)), CARD, tmp_path)
    outcome = written(payload, card)

    assert outcome.rewritten == 0
    assert payload.place(END - 1) == "partition 2, ext4 rootfs"
    assert_grown(card, whole, tmp_path)
    assert card.read_bytes()[0x1B8:0x1BC] == b"\1\2\3\4"  # the stamp's disk signature
    assert not list(tmp_path.glob("root"))


@pytest.mark.parametrize("features", ["^resize_inode", "^metadata_csum,^uninit_bg", "^flex_bg"])
def test_file_systems_whose_blocks_move_or_that_leave_nothing_to_the_kernel(tmp_path, features):
    image = make_tiny(tmp_path / "other.img", features=f"^has_journal,{features}")
    card = dirty_card(tmp_path / "card", CARD)

    written(grown(open_payload(image), CARD, tmp_path), card)

    assert_grown(card, image, tmp_path)


def test_it_is_the_same_each_time_so_that_a_write_can_go_on(tiny, tmp_path, monkeypatch):
    payload = open_payload(tiny, tiny_patches(tiny))
    card = dirty_card(tmp_path / "card", CARD)
    one = grown(payload, CARD, tmp_path)
    written(one, card)

    monkeypatch.setattr(module, "_PIECE", 64 << 10)
    other = grown(payload, CARD, tmp_path)

    assert other.map.all(lambda: False) == one.map.all(lambda: False)
    written_at = slice(ROOT + 1024 + 0x30, ROOT + 1024 + 0x34)  # s_wtime, which is not today's
    assert card.read_bytes()[written_at] == tiny.read_bytes()[written_at]
    assert written(other, card, mode="update").unchanged


def test_a_break_is_gone_on_with(tiny, whole, tmp_path, monkeypatch):
    payload = grown(open_payload(tiny, tiny_patches(tiny)), CARD, tmp_path)
    card = dirty_card(tmp_path / "card", CARD)
    before, real = [], os.pwritev

    def breaking(fd, views, offset):
        if offset >= ROOT + MIB:
            raise OSError(19, "no such device")
        before.append(offset)
        return real(fd, views, offset)

    monkeypatch.setattr(os, "pwritev", breaking)
    with pytest.raises(Exception, match="the card is gone"):
        written(payload, card)
    monkeypatch.undo()
    assert before
    assert not any(card.read_bytes()[:512])

    written(grown(open_payload(tiny, tiny_patches(tiny)), CARD, tmp_path), card, mode="resume")

    assert_grown(card, whole, tmp_path)


@pytest.mark.parametrize("size", [5 * MIB, 6 * MIB])
def test_no_room_beyond_the_image(tiny, tmp_path, size):
    payload = open_payload(tiny)

    assert grown(payload, size, tmp_path) is payload


def test_what_is_no_ext4_is_refused(tmp_path):
    image = tmp_path / "fat.img"
    entry = b"\0\xfe\xff\xff\x0c\xfe\xff\xff" + (2048).to_bytes(4, "little") + b"\0\x10\0\0"
    with image.open("wb") as file:
        file.write((bytes(446) + entry).ljust(510, b"\0") + b"\x55\xaa")
        file.truncate(3 * MIB)
    subprocess.run(
        ["mkfs.vfat", "--offset", "2048", image, "2048"], check=True, capture_output=True
    )
    before = read_table(image)

    with pytest.raises(UnsupportedError, match="number 1 and holds vfat, and only an ext4"):
        grown(open_payload(image), CARD, tmp_path)

    assert read_table(image) == before


def test_a_file_system_that_is_not_clean_is_not_written(tiny, tmp_path):
    image, part = tmp_path / "damaged.img", tmp_path / "part"
    copy_sparse(tiny, image)
    part.write_bytes(image.read_bytes()[ROOT:])
    argv = ["debugfs", "-w", "-R", "set_inode_field /data links_count 5", part]
    subprocess.run(argv, check=True, capture_output=True)
    with image.open("r+b") as file:
        file.seek(ROOT)
        file.write(part.read_bytes())

    with pytest.raises(ImageError, match="not clean"):
        grown(open_payload(image), CARD, tmp_path)

    assert not list(tmp_path.glob("root"))


@pytest.mark.parametrize("kind", ["img.zst", "xz", "stamp"])
def test_from_all_sources(tiny, whole, tmp_path, kind):
    card = dirty_card(tmp_path / "card", CARD)
    with open_sources(Cache(tmp_path / "cache"), grow=True) as sources:
        if kind == "stamp":
            source = sources.of_node(make_build(tmp_path, tiny, {"node3": "b1"}), "node3")
        elif kind == "xz":
            packed = tmp_path / "whole.img.xz"
            packed.write_bytes(lzma.compress(whole.read_bytes(), preset=0))
            source = sources.of_file(packed)
        else:
            source = sources.of_file(artifact.publish(whole, tmp_path, "n", fmt="img.zst").image)

        written(sources.fitted(source, CARD).payload, card)

    assert_grown(card, whole, tmp_path)
