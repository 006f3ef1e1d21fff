"""Two writers put the same files into copies of an image, at different times: the images become one and the same."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from piimage.disk import ext4, ext4_settle, fat, fat_settle
from piimage.disk.checksum import crc32c
from piimage.disk.sparse import copy_sparse
from piimage.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

WHEN, LATEST = 1_600_000_000, 1_650_000_000
FAT_START = 4 << 20


def test_crc32c_is_castagnolis():
    """The check value of the CRC catalogue (CRC-32/ISCSI), which inverts at both ends."""
    assert crc32c(0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def debugfs(image, *commands):
    script = "".join(f"{command}\n" for command in commands)
    argv = ["debugfs", "-w", "-f", "/dev/stdin", f"{image}?offset=0"]
    done = subprocess.run(argv, input=script, text=True, capture_output=True, check=True)
    assert "not found" not in done.stderr, done.stderr


@dataclass(frozen=True)
class Writer:
    """The moment and the random numbers of a kernel that writes."""

    now: int
    random: int


ONE, OTHER = Writer(1_700_000_000, 0x1234), Writer(1_800_000_000, 0xFEDCBA98)


@pytest.fixture(scope="module", params=["1k blocks", "4k blocks", "without checksums"])
def original(request, tmp_path_factory):
    """A file system with some names in it."""
    home = tmp_path_factory.mktemp("original")
    tree = home / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/kept").write_text("kept")
    (tree / "etc/gone").write_text("gone" * 1000)
    os.utime(tree / "etc/kept", (1_500_000_000, 1_500_000_000))
    image = home / "image"
    size = "4096" if request.param == "4k blocks" else "1024"
    features = "^metadata_csum" if request.param == "without checksums" else "metadata_csum"
    argv = ["mke2fs", "-q", "-t", "ext4", "-b", size, "-O", features, "-d", tree, image, "16m"]
    subprocess.run(list(map(str, argv)), check=True)
    return image


def written(original: Path, path: Path, writer: Writer) -> Path:
    """A copy with a new file, a new directory with an index, a file gone; as that writer's kernel leaves it."""
    copy_sparse(original, path)
    content = path.with_suffix(".content")
    content.write_bytes(b"content" * 5000)
    names = [f"/new/{'a-long-name-' * 5}{n}" for n in range(150)]
    debugfs(
        path, "mkdir /new", "rm /etc/gone", f"write {content} /etc/file",
        *(f"symlink {name} target" for name in names),
    )  # fmt: skip
    # An index for the large directory.
    subprocess.run(["e2fsck", "-fyD", path], capture_output=True, check=False)
    times = f"@{writer.now}"
    for name in ("/etc/file", "/new", names[7], names[140]):
        debugfs(
            path, f"sif {name} ctime {times}", f"sif {name} crtime {times}", f"sif {name} atime {times}",
            f"sif {name} mtime {times}", f"sif {name} generation {writer.random}",
        )  # fmt: skip
    debugfs(
        path,
        f"sif /etc ctime {times}",
        f"sif /etc mtime {times}",
        "sif /etc/file mtime @1640000000",
    )
    debugfs(
        path, f"ssv mtime {times}", f"ssv wtime {times}", f"ssv lastcheck {times}", "ssv mnt_count 3",
        f"ssv kbytes_written {writer.random}",
    )  # fmt: skip
    # Checksums of the directories follow from their generations: e2fsck makes them right.
    subprocess.run(["e2fsck", "-fy", path], capture_output=True, check=False)
    debugfs(path, f"ssv lastcheck {times}", f"ssv wtime {times}")
    journal_and_free_blocks(path, writer)
    ext4.check(path, 0)
    return path


def journal_and_free_blocks(path: Path, writer: Writer) -> None:
    """What a journal has left in its blocks, and a file that was written and removed."""
    with ext4.open_ext4(path, 0) as found:
        size = found.inodes.superblock.block_size
        run = found.inodes.runs(found.inodes.inode(8))[0]
        used = {
            at // size for at, length in found.allocated() for at in range(at, at + length, size)
        }
    free = next(n for n in range(4000, 16 << 20) if n not in used)
    with path.open("r+b") as file:
        for block in (run.physical + 5, free):
            file.seek(block * size)
            file.write(writer.now.to_bytes(8, "big"))


def fields(image, path):
    argv = ["debugfs", "-R", f"stat {path}", f"{image}?offset=0"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_two_writings_of_the_same_become_one(original, tmp_path):
    one, other = (written(original, tmp_path / n, w) for n, w in (("one", ONE), ("two", OTHER)))
    assert one.read_bytes() != other.read_bytes()

    for image in (one, other):
        ext4_settle.settle(image, original, 0, when=WHEN, latest=LATEST)
        ext4.check(image, 0)

    assert one.read_bytes() == other.read_bytes()
    said = fields(one, "/etc/file")
    assert "Generation: 0 " in said
    assert said.count(f"0x{WHEN:08x}:00000000") == 3
    assert f"mtime: 0x{1_640_000_000:08x}" in said
    assert f"mtime: 0x{WHEN:08x}" in fields(one, "/etc")
    assert f"mtime: 0x{1_500_000_000:08x}" in fields(one, "/etc/kept")
    assert fields(one, "/etc/kept") == fields(original, "/etc/kept")


def test_an_index_is_among_what_was_settled(original, tmp_path):
    assert "Flags: 0x81000" in fields(written(original, tmp_path / "one", ONE), "/new")


def test_settled_twice_is_settled(original, tmp_path):
    image = written(original, tmp_path / "one", ONE)
    ext4_settle.settle(image, original, 0, when=WHEN, latest=LATEST)
    before = image.read_bytes()

    ext4_settle.settle(image, original, 0, when=WHEN, latest=LATEST)

    assert image.read_bytes() == before


def test_another_image_is_refused(original, tmp_path):
    other = tmp_path / "other"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", other, "20m"], check=True)

    with pytest.raises(ImageError, match="is no copy of"):
        ext4_settle.settle(other, original, 0, when=WHEN, latest=LATEST)


def test_names_on_the_fat_tell_no_moment(small_master, tmp_path):
    """As the kernel leaves them: the time of writing is what tar has set, others are of the moment."""
    images = []
    for name, moment in (
        ("one", b"\x95\x5c\x53\x7d\x5d\x7d\x5d"),
        ("two", b"\x4e\x81\x53\x7e\x5d\x7e\x5d"),
    ):
        image = tmp_path / name
        copy_sparse(small_master, image)
        image.chmod(0o600)
        fat.write_files(image, FAT_START, {"cmdline.txt": b"the same", "overlays/new.dtb": b"too"})
        with fat.open_fat(image, FAT_START) as found:
            places = [found.directory_places(0)[0][0]]
            places += [found.directory_places(found.find("overlays").cluster)[0][0]]
        with image.open("r+b") as file:
            for place, short in zip(places, (b"CMDLINE TXT", b"NEW     DTB"), strict=True):
                file.seek(FAT_START + place)
                directory = file.read(512)
                file.seek(FAT_START + place + directory.index(short) + 13)
                file.write(moment)
        images.append(image)
    one, other = images
    assert one.read_bytes() != other.read_bytes()

    for image in images:
        fat_settle.settle(image, small_master, FAT_START, when=WHEN, latest=fat.DEFAULT_EPOCH)
        fat.check(image, FAT_START)

    assert one.read_bytes() == other.read_bytes()
    with fat.open_fat(one, FAT_START) as found:
        record = found.directory_bytes(0).partition(b"CMDLINE TXT")[2][2:15]
    # 2020-01-01 at midnight, thrice, and no tenths of seconds
    assert record == b"\0" + b"\0\0\x21\x50" + b"\x21\x50" + b"\0\0" + b"\0\0\x21\x50"


def test_a_time_of_the_moment_on_the_fat_becomes_the_given_one(small_master, tmp_path):
    image = tmp_path / "image"
    copy_sparse(small_master, image)
    image.chmod(0o600)
    fat.write_files(image, FAT_START, {"cmdline.txt": b"the same"})

    fat_settle.settle(image, small_master, FAT_START, when=WHEN, latest=fat.DEFAULT_EPOCH - 2)

    argv = ["mdir", "-i", f"{image}@@{FAT_START}", "::/cmdline.txt"]
    env = {**os.environ, "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    said = subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout
    assert "2020-09-13  12:26" in said
