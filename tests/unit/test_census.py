"""A census of an image and the imprint of a stamp: all that is there, read back as it was."""

from __future__ import annotations

import dataclasses
import gzip
import json

import pytest
from phony import BOOT, BOOT_START, ROOT, ROOT_START, SMALL_ROOT_START, Node, _tool, make_phony

from piimage import imprint
from piimage.disk import census
from piimage.disk.census import Census
from piimage.disk.ext4 import open_ext4
from piimage.disk.slots import Patch
from piimage.errors import ImageError

LABEL = "system_u:object_r:etc_t:s0"


@pytest.fixture(scope="module")
def counted(small_master):
    return census.take(small_master, root=2, firmware=1, place="/boot/firmware")


def test_a_census_has_every_name_with_what_it_is(counted):
    for path, node in ROOT.items():
        seen = counted.root[path]
        mode = 0o777 if isinstance(node.data, str) else node.mode
        assert (seen.mode, seen.uid, seen.gid) == (mode, node.uid, node.gid), path
        if isinstance(node.data, bytes):
            assert (seen.size, seen.sha256) == imprint.digest(node.data), path
        if isinstance(node.data, str):
            assert seen.target == node.data
    for name, data in BOOT.items():
        seen = counted.firmware[f"/{name}"]
        assert (seen.size, seen.sha256) == imprint.digest(data), name
    assert counted.firmware["/overlays"].kind == "dir"


def test_a_census_is_read_back_as_it_was(counted):
    packed = counted.encode()

    assert Census.decode(packed, "census") == counted
    assert packed == counted.encode()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"junk",
        gzip.compress(b"{}", mtime=0),
        gzip.compress(b'{"census 1": {"root": 1}}', mtime=0),
        gzip.compress(b"[1]", mtime=0),
    ],
)
def test_a_damaged_census_is_told(damage):
    with pytest.raises(ImageError, match=r"`x\.gz` is damaged or of another version"):
        Census.decode(damage, "x.gz")


def test_attributes_are_read_from_the_inode_and_from_a_block_of_their_own(tmp_path):
    image = make_phony(
        tmp_path / "i.img", root_size=8 << 20, root={"/f": Node(b"f"), "/c": Node(b"c")}
    )
    long = "x" * 900
    script = f"ea_set /f security.selinux {LABEL}\nea_set /f user.long {long}\nmknod null c 1 3\nmknod pipe p\n"
    _tool("debugfs", "-w", "-f", "-", f"{image}?offset={ROOT_START}", stdin=script.encode())

    with open_ext4(image, ROOT_START) as ext4:
        inodes = {path: inode for path, inode in ext4.walk() if path in ("/f", "/c")}
        found = {path: ext4.attributes(inode) for path, inode in inodes.items()}
    seen = census.of_root(image, ROOT_START)

    assert found == {
        "/f": {"security.selinux": LABEL.encode(), "user.long": long.encode()},
        "/c": {},
    }
    assert seen["/f"].attributes["security.selinux"] == LABEL
    assert (seen["/null"].kind, seen["/null"].target, seen["/pipe"].target) == (
        "other",
        "c 1:3",
        "p",
    )


def test_a_file_of_nothing_but_a_size_takes_no_time(tmp_path):
    image = make_phony(tmp_path / "i.img", root_size=8 << 20, root={"/f": Node(b"f")})
    script = f"sif /f size {1 << 42}\n"
    _tool("debugfs", "-w", "-f", "-", f"{image}?offset={ROOT_START}", stdin=script.encode())

    with pytest.raises(ImageError, match=f"claims to hold {1 << 42} bytes"):
        census.of_root(image, ROOT_START)


def test_holes_are_zeros(tmp_path):
    image = make_phony(tmp_path / "i.img", root_size=12 << 20)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    script = f"write {sparse} sparse\n"
    _tool("debugfs", "-w", "-f", "-", f"{image}?offset={ROOT_START}", stdin=script.encode())

    seen = census.of_root(image, ROOT_START)["/sparse"]

    assert (seen.size, seen.sha256) == imprint.digest(sparse.read_bytes())


def test_patches_are_seen(small_master):
    patch = [Patch(0x1B8, b"\4\3\2\1")]

    found = census.at_paths(small_master, SMALL_ROOT_START, ["/etc/fstab", "/no"], patch)

    assert list(found) == ["/etc/fstab"]
    assert census.of_firmware(small_master, BOOT_START).keys() >= {"/config.txt"}


def test_an_imprint_is_private_and_read_back(tmp_path):
    path = tmp_path / "n.json"
    made = imprint.Imprint(
        node="n", build="b" * 12, variant="v", instance_id="i", disk_id=None,
        slots={"/s": (1, "d")}, firmware={"f": (2, "e")},
    )  # fmt: skip
    path.write_text(json.dumps({"imprint 1": dataclasses.asdict(made)}))

    assert imprint.read(path) == made
    assert imprint.read(tmp_path / "none") is None
    path.write_text('{"imprint 0": {}}')
    with pytest.raises(ImageError, match="damaged or of another version"):
        imprint.read(path)
