"""The bmap against bmaptool: a card full of old bytes must end up with intact file systems."""

from __future__ import annotations

import hashlib
import re
import subprocess
from xml.etree import ElementTree as ET

import pytest
from phony import BOOT, BOOT_START, ROOT, ROOT_START, SMALL_ROOT_START, Node, make_phony

from piimage.disk import ext4, fat
from piimage.disk.bmap import BLOCK, bmap_document, mapped_blocks, write_bmap

MIB = 1 << 20


def ranges_of(bmap):
    for element in ET.parse(bmap).getroot().iter("Range"):
        first, _, last = element.text.strip().partition("-")
        yield int(first), int(last or first), element.get("chksum")


def dirty(target, bmap, size):
    """Old bytes wherever bmaptool did not write: it truncates files, a card it would not."""
    with target.open("r+b") as file:
        file.truncate(size)
        at = 0
        for first, last, _ in [*ranges_of(bmap), (-(-size // BLOCK), 0, "")]:
            file.seek(at)
            file.write(b"\xff" * (min(first * BLOCK, size) - at))
            at = (last + 1) * BLOCK


def test_bmaptool_copies_a_whole_card(tmp_path):
    zeros = Node(b"z" * 3 * MIB)
    image = make_phony(
        tmp_path / "x.img",
        root_size=16 * MIB,
        root={"/var/zeros": zeros},
        gap=b"boot loader" * 999,
    )
    with image.open("r+b") as file:
        for _, where, length in ext4.extents(image, ROOT_START, "/var/zeros"):
            file.seek(where)
            file.write(bytes(length))
    holes = tmp_path / "holes.img"
    subprocess.run(["cp", "--sparse=always", image, holes], check=True)
    bmap, card = tmp_path / "x.bmap", tmp_path / "card"

    write_bmap(holes, bmap)
    done = subprocess.run(
        ["bmaptool", "copy", "--bmap", bmap, holes, card],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    dirty(card, bmap, image.stat().st_size)

    ext4.check(card, ROOT_START)
    fat.check(card, BOOT_START)
    files = {p: node.data for p, node in ROOT.items() if isinstance(node.data, bytes)}
    files["/var/zeros"] = bytes(3 * MIB)
    assert ext4.read_files(card, ROOT_START, files) == files
    assert fat.read_files(card, BOOT_START, BOOT) == BOOT
    assert card.read_bytes()[:BOOT_START] == image.read_bytes()[:BOOT_START]
    with image.open("rb") as ours, card.open("rb") as theirs:
        for first, last, _ in ranges_of(bmap):
            ours.seek(first * BLOCK)
            theirs.seek(first * BLOCK)
            length = (last + 1 - first) * BLOCK
            assert ours.read(length) == theirs.read(length)


def test_format(small_master, tmp_path):
    text = bmap_document(small_master).decode()

    own = re.search(r"<BmapFileChecksum> (\w{64}) </", text)[1]
    assert hashlib.sha256(text.replace(own, "0" * 64).encode()).hexdigest() == own
    path = tmp_path / "x.bmap"
    path.write_text(text)
    root = ET.parse(path).getroot()
    assert root.get("version") == "2.0"
    assert int(root.findtext("ImageSize")) == small_master.stat().st_size
    found = list(ranges_of(path))
    assert int(root.findtext("MappedBlocksCount")) == sum(b - a + 1 for a, b, _ in found)
    raw = small_master.read_bytes()
    for first, last, digest in found:
        assert hashlib.sha256(raw[first * BLOCK : (last + 1) * BLOCK]).hexdigest() == digest
    assert sum(b - a + 1 for a, b, _ in found) * BLOCK < small_master.stat().st_size / 2


def test_image_that_ends_inside_a_block_and_unknown_file_systems(small, tmp_path):
    with small.open("r+b") as file:
        file.truncate(small.stat().st_size + 700)
        file.seek(SMALL_ROOT_START + 1024)
        file.write(bytes(1024))  # no file system that we know: all of the partition counts

    blocks = mapped_blocks(small)

    first, count = blocks[-1]
    assert first * BLOCK <= SMALL_ROOT_START
    assert (first + count) * BLOCK == SMALL_ROOT_START + 12 * MIB
    bmap = tmp_path / "x.bmap"
    write_bmap(small, bmap)
    subprocess.run(
        ["bmaptool", "copy", "--bmap", bmap, small, tmp_path / "card"],
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("script", ["start=2048,size=60000,type=5\nstart=4096,size=8192,type=82\n"])
def test_logical_partitions_keep_their_table(tmp_path, script):
    image = tmp_path / "x.img"
    with image.open("wb") as file:
        file.truncate(40 * MIB)
    subprocess.run(
        ["/usr/sbin/sfdisk", "-q", image], input=("label: dos\n" + script).encode(), check=True
    )

    blocks = mapped_blocks(image)

    assert blocks == [(0, 257), (512, 1024)]
