"""A whole image of five megabytes: MBR, FAT firmware partition, ext4 root; and cards full of old bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from phony import _tool

from piimage import artifact
from piimage.disk import ext4, fat
from piimage.disk.slots import Patch
from piimage.disk.sparse import copy_sparse, hash_file
from piimage.stamping import NodeStamp, write_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MIB = 1 << 20
BOOT, BOOT_SIZE = MIB, MIB
ROOT, ROOT_SIZE = 2 * MIB, 3 * MIB
SIZE = ROOT + ROOT_SIZE
SLOT, ZEROS = "/slot", "/zeros"
YAML = """\
version: 1
name: abacus
base: debian-13
users:
  - {name: ada, uid: 1000, rename_from: auto}
network:
  wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}
nodes: {count: %d, name: "node{n}", head: 0}
"""


def make_tiny(
    path: Path,
    root_size: int = ROOT_SIZE,
    data: int = 600_000,
    features: str = "^has_journal",
) -> Path:
    """Make the image at `path`: a slot, a file of `data` bytes, and a file whose zeros are a hole of the image."""
    entries = b"".join(
        bytes([0, 0xFE, 0xFF, 0xFF, kind, 0xFE, 0xFF, 0xFF])
        + (start // 512).to_bytes(4, "little")
        + (size // 512).to_bytes(4, "little")
        for kind, start, size in ((0x0C, BOOT, BOOT_SIZE), (0x83, ROOT, root_size))
    )
    with path.open("wb") as file:
        file.write((bytes(446) + entries).ljust(510, b"\0") + b"\x55\xaa")
        file.truncate(ROOT + root_size)
    tree = path.with_suffix(".tree")
    tree.mkdir()
    (tree / "slot").write_bytes(b"\n" * 16384)
    (tree / "zeros").write_bytes(b"z" * 300_000)
    (tree / "data").write_bytes(os.urandom(data))
    offset = ["--offset", str(BOOT // 512)]
    _tool("mkfs.vfat", "-F", "12", "-n", "bootfs", *offset, str(path), str(BOOT_SIZE >> 10))
    options = f"offset={ROOT},root_owner=0:0"
    _tool("mke2fs", "-F", "-q", "-t", "ext4", "-O", features, "-L", "rootfs", "-E", options,
          "-d", str(tree), str(path), f"{root_size >> 10}k")  # fmt: skip
    with path.open("r+b") as file:
        for _, where, length in ext4.extents(path, ROOT, ZEROS):
            file.seek(where)
            file.write(bytes(length))
    holes = path.with_suffix(".holes")
    _tool("cp", "--sparse=always", str(path), str(holes))
    holes.rename(path)
    return path


def tiny_patches(image: Path) -> Sequence[Patch]:
    """What makes the image node 3: its slot, a file on the firmware partition, a disk signature."""
    patches = [
        Patch(where, b"#cloud-config\n".ljust(length, b"\n"))
        for _, where, length in ext4.extents(image, ROOT, SLOT)
    ]
    patches.append(Patch(0x1B8, b"\1\2\3\4"))
    return patches + fat.stage(image, BOOT, {"piimage.json": b"{}\n" * 9000})


def make_build(
    home: Path,
    image: Path,
    builds: Mapping[str, str],
    *,
    published: Path | None = None,
    count: int = 5,
) -> Path:
    """The cluster `abacus` of `count` nodes in `home/cluster.yaml`, with a build of those in `builds` (name: build id).

    Their variant is a copy of the tiny `image`, or of what was `published` of it. Returns the build's directory.
    """
    (home / "cluster.yaml").write_text(YAML % count)
    directory = home / "dist" / "abacus"
    (directory / "stamps").mkdir(parents=True)
    (directory / "variants").mkdir()
    source = published or image
    variant = directory / "variants" / f"worker.{source.name.partition('.')[2]}"
    copy_sparse(source, variant)
    patches = tuple(tiny_patches(image))
    for name, build in builds.items():
        write_stamp(directory / "stamps" / f"{name}.stamp", NodeStamp(name, "v1", build, patches))
    worker = {"id": "v1", "image": f"variants/{variant.name}", "sha256": hash_file(variant)}
    nodes = {name: {"stamp": build, "variant": "v1"} for name, build in builds.items()}
    known = {"version": 1, "cluster": "abacus", "variants": {"worker": worker}, "nodes": nodes}
    artifact.write_manifest(directory, known)
    return directory


def dirty_card(path: Path, size: int) -> Path:
    """A card that is full of old bytes, with an old partition table and the copy of an old GPT at its end."""
    with path.open("wb") as file:
        file.write(b"old!" * -(-size // 4))
        file.truncate(size)
        file.seek(510)
        file.write(b"\x55\xaa")
        file.seek(size - 512)
        file.write(b"EFI PART")
    return path
