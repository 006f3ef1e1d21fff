"""Stamp files: written whole, read back exactly, refused when they are anything else."""

from __future__ import annotations

import json
from dataclasses import replace

import phony_facts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phony import SEED, SLOTS, SMALL_ROOT_START

from piimage.bases.facts_reader import read_facts
from piimage.disk import ext4, fat
from piimage.disk.slots import Patch, SlotError, apply_patches, locate
from piimage.errors import ImageError
from piimage.plan.plan import StampPlan
from piimage.stamping import NodeStamp, disk_id, own_disk_id, read_stamp, stamp, write_stamp
from piimage.variant import Variant

MADE = NodeStamp(
    "node3", "v" * 64, "abcdef012345", (Patch(4096, b"\n{\0}\n"), Patch(0, b"x" * 9000))
)


@pytest.fixture
def path(tmp_path):
    write_stamp(tmp_path / "node3.stamp", MADE)
    return tmp_path / "node3.stamp"


def test_round_trip(path):
    assert read_stamp(path) == MADE
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_secret_in_its_repr():
    assert "xxx" not in repr(MADE)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.binary(max_size=300)), max_size=8))
def test_any_patches_round_trip(tmp_path_factory, pieces):
    made = replace(MADE, patches=tuple(Patch(offset, data) for offset, data in pieces))
    path = tmp_path_factory.mktemp("stamp") / "x.stamp"
    write_stamp(path, made)

    assert read_stamp(path) == made


@given(st.data())
def test_cut_short(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("stamp") / "x.stamp"
    write_stamp(path, MADE)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    with pytest.raises(ImageError):
        read_stamp(path)


def test_too_long(path):
    path.write_bytes(path.read_bytes() + b"x")

    with pytest.raises(ImageError, match="cut short or of another version"):
        read_stamp(path)


HEADER = {"version": 1, "node": "n", "variant": "v", "build": "b", "patches": []}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"null",
        json.dumps({**HEADER, "version": 2}).encode(),
        json.dumps({**HEADER, "patches": [[0, -1]]}).encode(),
        json.dumps({**HEADER, "patches": [[-1, 0]]}).encode(),
        json.dumps({**HEADER, "patches": [["0", 0]]}).encode(),
        json.dumps({**HEADER, "patches": [[0, 1, 2]]}).encode(),
        json.dumps({**HEADER, "patches": {"a": 1}}).encode(),
        json.dumps({k: v for k, v in HEADER.items() if k != "node"}).encode(),
    ],
)
def test_what_is_no_stamp(tmp_path, header):
    path = tmp_path / "x.stamp"
    path.write_bytes(header + b"\n")

    with pytest.raises(ImageError, match=r"stamp file|another version"):
        read_stamp(path)


def test_no_file(tmp_path):
    with pytest.raises(ImageError, match="no stamp"):
        read_stamp(tmp_path / "absent.stamp")


def test_disk_ids_differ_and_stay():
    cluster = phony_facts.cluster()
    found = [disk_id(cluster, node.name) for node in cluster.nodes]

    assert found == [disk_id(cluster, node.name) for node in cluster.nodes]
    assert len(set(found)) == 3
    assert all(len(one) == 4 and any(one) for one in found)
    assert disk_id(replace(cluster, name="other"), "node0") != found[0]


@pytest.fixture
def facts(small_master):
    return read_facts(small_master, image_id="a" * 64)


def stamped(image, facts, **more):
    cluster = phony_facts.cluster()
    values = {
        "node": cluster.nodes[1],
        "build": "b" * 12,
        "instance_id": "i",
        "slots": {f"{SEED}/meta-data": b"instance-id: x\n"},
        "firmware": {"piimage.json": b"{}\n", "cmdline.txt": b"quiet\n"},
        "checks": (),
        **more,
    }
    slots = locate(image, SMALL_ROOT_START, SLOTS)
    variant = Variant("v" * 64, image, slots, image.with_suffix(".census"))
    return stamp(cluster, StampPlan(**values), variant, facts)


def test_slots_firmware_and_signature(small, facts):
    made = stamped(small, facts)
    apply_patches(small, made.patches)

    meta = ext4.read_files(small, SMALL_ROOT_START, [f"{SEED}/meta-data"])[f"{SEED}/meta-data"]
    assert (meta.rstrip(b"\n"), len(meta)) == (b"instance-id: x", 4096)
    start = facts.table.partition(1).start
    assert fat.read_files(small, start, ["cmdline.txt"]) == {"cmdline.txt": b"quiet\n"}
    assert small.read_bytes()[0x1B8:0x1BC] == disk_id(phony_facts.cluster(), "node1")
    ext4.check(small, SMALL_ROOT_START)
    fat.check(small, start)


def test_a_base_that_mounts_by_partuuid_keeps_its_signature(small, facts):
    by_uuid = phony_facts.with_files(
        facts, {"/etc/fstab": phony_facts.text("PARTUUID=1badcafe-02 / ext4 rw 0 1\n")}
    )

    made = stamped(small, by_uuid)

    assert not [patch for patch in made.patches if patch.offset == 0x1B8]


def test_the_variant_is_not_written_to(small, facts):
    before = small.read_bytes()

    stamped(small, facts)

    assert small.read_bytes() == before


def test_a_slot_that_is_too_small(small, facts):
    with pytest.raises(SlotError, match="4097 bytes, its slot holds 4096"):
        stamped(small, facts, slots={f"{SEED}/meta-data": b"x" * 4097})


@pytest.mark.parametrize(
    ("path", "text", "keeps"),
    [
        ("/etc/fstab", "PARTUUID=0a0b0c0d-02 / ext4 defaults 0 1\n", True),
        ("/etc/fstab", "/dev/disk/by-partuuid/0a0b0c0d-02 / ext4 defaults 0 1\n", True),
        (
            "/etc/systemd/system/srv.mount",
            "[Mount]\nWhat=/dev/disk/by-partuuid/0a0b0c0d-03\n",
            True,
        ),
        ("/etc/systemd/system/x.swap", "[Swap]\nWhat=PARTUUID=0a0b0c0d-03\n", True),
        ("/etc/fstab", "LABEL=root / ext4 defaults 0 1\n", False),
        ("/etc/motd", "PARTUUID=0a0b0c0d-02\n", False),
    ],
)
def test_a_signature_that_anything_is_mounted_by_stays(path, text, keeps):
    facts = phony_facts.with_files(phony_facts.debian(), {path: phony_facts.text(text)})
    cluster = phony_facts.cluster()

    assert (own_disk_id(cluster, "node1", facts) is None) == keeps
