"""Slots: located once, filled per node, nothing else touched."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from phony import ROOT_START, SEED, SLOTS, Node, make_phony

from piimage.disk import ext4
from piimage.disk.slots import Patch, SlotError, SlotMap, apply_patches, fill, locate
from piimage.errors import ImageError, WriteFailedError


def test_a_stamp_fills_slots_and_leaves_the_file_system_alone(phony):
    before = ext4.list_tree(phony, ROOT_START, ["/"])
    slot_map = SlotMap.from_json(json.loads(json.dumps(locate(phony, ROOT_START, SLOTS).to_json())))
    full = b"f" * 8192
    contents = {
        f"{SEED}/user-data": b"#cloud-config\n",
        f"{SEED}/meta-data": b"",
        f"{SEED}/network-config": full,
    }

    apply_patches(phony, fill(slot_map, contents))

    got = ext4.read_files(phony, ROOT_START, SLOTS)
    assert got[f"{SEED}/user-data"] == b"#cloud-config\n" + b"\n" * (16384 - 14)
    assert got[f"{SEED}/meta-data"] == b"\n" * 4096
    assert got[f"{SEED}/network-config"] == full
    assert ext4.list_tree(phony, ROOT_START, ["/"]) == before
    ext4.check(phony, ROOT_START)


def test_slots_not_named_are_left_alone(phony):
    slot_map = locate(phony, ROOT_START, SLOTS)

    patches = fill(slot_map, {f"{SEED}/meta-data": b"instance-id: a\n"})

    assert sum(len(patch.data) for patch in patches) == 4096


def test_a_fragmented_slot(tmp_path):
    """Freeing every other small file leaves room for 1 KiB pieces only."""
    files = {f"/frag/{n:05}": Node(b"x" * 1000) for n in range(300)}
    image = make_phony(
        tmp_path / "x.img",
        root=files,
        root_size=8 << 20,
        mke2fs=("-t", "ext4", "-O", "^has_journal"),
    )
    free = [f"rm /frag/{n:05}" for n in range(0, 300, 2)]
    source = tmp_path / "slot"
    source.write_bytes(b"\n" * 16384)
    big = tmp_path / "big"
    script = "\n".join([*free, f"write {source} /slot"]).encode()
    name = f"{image}?offset={ROOT_START}"
    subprocess.run(
        ["/usr/sbin/debugfs", "-w", "-f", "-", name], input=script, check=True, capture_output=True
    )
    assert not big.exists()

    slot_map = locate(image, ROOT_START, {"/slot": 16384})
    content = os.urandom(16384)
    apply_patches(image, fill(slot_map, {"/slot": content}))

    assert len(slot_map.slots["/slot"].extents) > 1
    assert ext4.read_files(image, ROOT_START, ["/slot"]) == {"/slot": content}


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({f"{SEED}/user-data": 8192}, "has 16384 bytes, expected 8192"),
        ({"/nowhere": 4096}, "has no `/nowhere`"),
        ({"/etc/hostname": 7}, "is not empty"),
        ({"/etc/localtime": 24}, "no regular file"),
    ],
)
def test_locate_refuses(phony_master, sizes, words):
    with pytest.raises(ImageError, match=words):
        locate(phony_master, ROOT_START, sizes)


def test_locate_refuses_shared_blocks(phony):
    """Two inodes that a hostile image points at the same blocks."""
    one, other = f"{SEED}/user-data", f"{SEED}/network-config"
    name = f"{phony}?offset={ROOT_START}"

    def stat(path):
        argv = ["/usr/sbin/debugfs", "-R", f"dump_extents {path}", name]
        return subprocess.run(argv, capture_output=True, check=True).stdout.decode()

    first = stat(one).splitlines()[1].split()[7]
    script = f"sif {other} block[5] {first}\n".encode()
    argv = ["/usr/sbin/debugfs", "-w", "-f", "-", name]
    subprocess.run(argv, input=script, check=True, capture_output=True)

    with pytest.raises(ImageError, match="share blocks"):
        locate(phony, ROOT_START, SLOTS)


def test_fill_refuses_what_does_not_fit(phony_master):
    slot_map = locate(phony_master, ROOT_START, SLOTS)

    with pytest.raises(SlotError, match="has 4097 bytes, its slot holds 4096"):
        fill(slot_map, {f"{SEED}/meta-data": b"x" * 4097})
    with pytest.raises(SlotError, match="no slot `/etc/passwd`"):
        fill(slot_map, {"/etc/passwd": b""})


def test_patches_outside_write_nothing(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"0123456789")

    for bad in (Patch(8, b"abc"), Patch(-1, b"a")):
        with pytest.raises(ImageError, match="outside the image"):
            apply_patches(target, [Patch(0, b"A"), bad])

    assert target.read_bytes() == b"0123456789"


def test_patches_through_a_descriptor_leave_it_open(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"0123456789")
    with target.open("r+b") as file:
        apply_patches(file.fileno(), [Patch(8, b"ZZ"), Patch(0, b"A")])
        assert os.fstat(file.fileno()).st_size == 10

    assert target.read_bytes() == b"A1234567ZZ"


def test_unwritable_targets_are_write_errors(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"0123")
    with target.open("rb") as file, pytest.raises(WriteFailedError, match="cannot write"):
        apply_patches(file.fileno(), [Patch(0, b"A")])
    with pytest.raises(WriteFailedError, match="no such file"):
        apply_patches(tmp_path / "absent", [])


def test_sixty_four_stamps_are_quick(phony):
    slot_map = locate(phony, ROOT_START, SLOTS)
    began = time.monotonic()
    for n in range(64):
        fill(slot_map, {path: f"node{n}\n".encode() for path in SLOTS})

    assert time.monotonic() - began < 0.5
