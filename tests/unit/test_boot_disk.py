"""What a rehearsal starts from: a full image, or a variant whose overlay holds the stamp."""

from __future__ import annotations

import json
import subprocess

import pytest
from phony_company import CLUSTER

from piimage.boot import qemu
from piimage.boot.disk import Disk, candidates, choose
from piimage.disk.slots import Patch, apply_patches
from piimage.disk.sparse import copy_sparse
from piimage.errors import ImageError, PiimageError, ToolFailedError
from piimage.stamping import NodeStamp, write_stamp

NODE = CLUSTER.nodes[1]
PATCHES = (Patch(0x1B8, b"abcd"), Patch(70_001, b"x" * 9000), Patch(1 << 20, b"y" * 512))


@pytest.fixture
def output(tmp_path):
    (tmp_path / "stamps").mkdir()
    (tmp_path / "variants").mkdir()
    return tmp_path


def stamped(output, *, variant="v1", build="new"):
    write_stamp(output / "stamps" / "node1.stamp", NodeStamp("node1", variant, build, PATCHES))
    (output / "variants" / "worker.img").write_bytes(b"w")
    entries = {"worker": {"id": "v1", "image": "variants/worker.img"}}
    (output / "manifest.json").write_text(json.dumps({"variants": entries, "nodes": known("old")}))


def known(build):
    return {"node1": {"img": build}}


def test_nothing_built_says_how_to_build(output):
    with pytest.raises(PiimageError, match="there is no image") as caught:
        candidates(output, NODE)
    assert "piimage build --node 1" in caught.value.hint
    assert "piimage build --all" in caught.value.hint


def test_a_stamp_is_started_over_its_variant(output):
    stamped(output)

    (disk,) = candidates(output, NODE)

    assert disk.image == output / "variants" / "worker.img"
    assert (disk.build, disk.stamp) == ("new", output / "stamps" / "node1.stamp")
    assert disk.patches == PATCHES
    assert "abcd" not in repr(disk)


def test_a_stamp_without_its_variant_is_refused(output):
    stamped(output, variant="v0")

    with pytest.raises(ImageError, match="belongs to a variant") as caught:
        candidates(output, NODE)
    assert "piimage build --all" in caught.value.hint


def test_a_full_image_is_preferred_unless_only_the_stamp_is_of_today(output):
    stamped(output)
    (output / "node1.img").write_bytes(b"")
    found = candidates(output, NODE)

    assert [disk.stamp is None for disk in found] == [True, False]
    assert choose(found, "old").stamp is None
    assert choose(found, "new").stamp is not None
    assert choose(found, "neither").stamp is None


def test_a_full_image_does_without_a_variant(output):
    stamped(output, variant="v0")
    (output / "node1.img").write_bytes(b"")

    (disk,) = candidates(output, NODE)

    assert (disk.build, disk.patches) == ("old", ())


def test_a_damaged_manifest_is_none(output):
    (output / "node1.img").write_bytes(b"")
    for text in ("{", "[]", "{}"):
        (output / "manifest.json").write_text(text)
        assert candidates(output, NODE)[0].build is None


def test_the_overlay_holds_the_stamp_and_the_variant_stays(small, tmp_path):
    before = small.read_bytes()
    overlay, raw = tmp_path / "card.qcow2", tmp_path / "raw"
    expected = tmp_path / "expected"
    copy_sparse(small, expected)
    apply_patches(expected, PATCHES)

    qemu.overlay(Disk(image=small, build=None, patches=PATCHES), overlay, small.stat().st_size)

    subprocess.run(["qemu-img", "convert", "-O", "raw", overlay, raw], check=True)
    assert raw.read_bytes() == expected.read_bytes()
    assert small.read_bytes() == before
    assert overlay.stat().st_size < 1 << 20, "only what differs"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == []


def test_a_stamp_that_lies_outside_is_not_left_out(small, tmp_path):
    disk = Disk(image=small, build=None, patches=(Patch(small.stat().st_size, b"x"),))

    with pytest.raises(ToolFailedError, match="qemu-io"):
        qemu.overlay(disk, tmp_path / "card.qcow2", small.stat().st_size)
