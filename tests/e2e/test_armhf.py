"""A base of another architecture and release: imported, and baked by both engines with the same result."""

from __future__ import annotations

import time

import older_debian
import pytest
from bakes import bake, resolve
from ext4_records import differences, records
from older_debian import Wanted

from piimage.bases.cache import Cache
from piimage.disk import ext4


@pytest.fixture(scope="module")
def base(tmp_path_factory, piimage):
    """A small, older Debian for armhf; not the default base's release: what is baked natively depends on it too."""
    home = tmp_path_factory.mktemp("armhf")
    return older_debian.imported(Wanted("bookworm", "armhf"), home, piimage, home / "cache")


def test_the_base_is_known_for_what_it_is(base):
    assert base.facts.architecture == "armhf"
    assert not base.trusted


def test_both_engines_bake_it_with_the_same_result(base, tmp_path):
    began = time.time()
    layer = resolve(base, ["tree", "fping"])
    assert {p.name: p.architecture for p in layer.packages}.items() >= {
        "tree": "armhf", "fping": "armhf",
    }.items()  # fmt: skip
    found = {}
    for engine in ("chroot", "vm"):
        made = bake(base, layer, engine, Cache(tmp_path / engine))
        assert made.tools["engine"] == engine
        new = {p.name: p.version for p in layer.packages}
        assert made.facts.packages == {**base.facts.packages, **new}
        root = made.facts.table.partition(made.facts.mounts["/"]).start
        found[engine] = records(made.path, root)
        program = ext4.read_files(made.path, root, ["/usr/bin/tree"])["/usr/bin/tree"]
        assert program[:5] == b"\x7fELF\1"
        assert program[18:20] == b"\x28\0"  # e_machine of elf(5): ARM
    assert differences(found["vm"], found["chroot"], began) == {}
