"""The FAT reader and writer against mtools, fsck.fat, and images that want to harm it."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phony import BOOT, BOOT_START

from piimage.disk import fat
from piimage.disk.slots import apply_patches
from piimage.disk.sparse import hash_file
from piimage.errors import ImageError

MIB = 1 << 20


def mtool(tool, image, *args, offset=BOOT_START):
    argv = [tool, "-i", f"{image}@@{offset}", *args]
    env = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    return subprocess.run(argv, capture_output=True, check=True, env=env).stdout


def make_fat(path, bits, size, *options):
    with path.open("wb") as file:
        file.truncate(size)
    argv = ["/usr/sbin/mkfs.vfat", "-F", str(bits), *options, str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def test_lists_what_mtools_wrote(phony_master):
    tree = fat.list_tree(phony_master, BOOT_START)

    assert {p.strip("/") for p, f in tree.items() if f.kind == "file"} == set(BOOT)
    assert tree["/overlays"].kind == "dir"


def test_reads_in_any_case_and_leaves_out_the_rest(phony_master):
    asked = ["CONFIG.TXT", "/overlays/disable-bt.dtbo", "overlays", "none", "config.txt/x"]

    contents = fat.read_files(phony_master, BOOT_START, asked)

    assert contents == {
        "CONFIG.TXT": BOOT["config.txt"],
        "/overlays/disable-bt.dtbo": BOOT["overlays/disable-bt.dtbo"],
    }
    assert fat.read_files(phony_master, BOOT_START, ["bootcode.bin"], limit=51199) == {}


@pytest.mark.parametrize(
    ("bits", "size", "options"),
    [
        (12, 1 * MIB, ()),
        (16, 16 * MIB, ()),
        (32, 40 * MIB, ("-s", "1")),
        (16, 32 * MIB, ("-S", "1024")),
    ],
)
def test_every_width_of_fat(tmp_path, bits, size, options):
    image = make_fat(tmp_path / "fat.img", bits, size, *options)
    files = {f"A rather long name {n}.text": os.urandom(n * 700) for n in range(40)}
    files |= {"UPPER.TXT": b"u", "lower.txt": b"l", "Grüße ☃.txt": b"s", "empty": b""}

    fat.write_files(image, 0, {f"dir/sub/{name}": data for name, data in files.items()})

    fat.check(image, 0)
    paths = [f"/dir/sub/{name}" for name in files]
    assert set(paths) < set(fat.list_tree(image, 0))
    assert fat.read_files(image, 0, paths) == {f"/dir/sub/{n}": d for n, d in files.items()}
    for name, data in files.items():
        assert mtool("mtype", image, f"::/dir/sub/{name}", offset=0) == data


def test_staging_touches_nothing_and_patches_do_it(phony):
    before = hash_file(phony)
    stamp = phony.stat().st_mtime_ns
    writes = {"cmdline.txt": b"x" * 3000, "overlays/new one.dtbo": b"n" * 700, "a/b/c": b"deep"}

    patches = fat.stage(phony, BOOT_START, writes)

    assert phony.stat().st_mtime_ns == stamp
    assert hash_file(phony) == before
    apply_patches(phony, patches)
    for path, data in writes.items():
        assert mtool("mtype", phony, f"::/{path}") == data
    fat.check(phony, BOOT_START)
    assert fat.read_files(phony, BOOT_START, BOOT) == {**BOOT, "cmdline.txt": b"x" * 3000}
    assert sum(len(patch.data) for patch in patches) < 16384


def test_patches_hit_only_free_clusters_and_metadata(tmp_path):
    """With clusters smaller than a page, the scratch file's holes must not reach other files."""
    image = make_fat(tmp_path / "fat.img", 32, 40 * MIB, "-s", "1")
    neighbours = {f"n{n}": os.urandom(512) for n in range(64)}
    fat.write_files(image, 0, neighbours)
    for n in range(0, 64, 2):
        mtool("mdel", image, f"::/n{n}", offset=0)

    fat.write_files(image, 0, {"new": os.urandom(20 * 512)})

    kept = {f"n{n}": neighbours[f"n{n}"] for n in range(1, 64, 2)}
    assert fat.read_files(image, 0, neighbours) == kept
    fat.check(image, 0)


def test_staging_is_deterministic_and_quick(phony_master, monkeypatch):
    writes = {"cmdline.txt": b"node3", "user-data": b"#cloud-config\n"}
    first = fat.stage(phony_master, BOOT_START, writes)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("MTOOLSRC", "/nonexistent")
    began = sum(os.times()[:4])
    again = fat.stage(phony_master, BOOT_START, dict(reversed(writes.items())))

    assert again == first
    date = (40 << 9 | 1 << 5 | 1).to_bytes(2, "little")  # 2020-01-01, not now
    assert any(b"CMDLINE TXT" in patch.data and date in patch.data for patch in again)
    assert sum(os.times()[:4]) - began < 0.5  # ours and mtools': a busy machine is not our fault


def test_source_date_epoch_is_the_date_of_files(phony, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")

    fat.write_files(phony, BOOT_START, {"dated": b""})

    monkeypatch.setenv("TZ", "UTC")
    assert b"2023-11-14  22:13" in mtool("mdir", phony, "::/dated")


def test_equal_content_is_no_patch(phony_master):
    same = {
        "config.txt": BOOT["config.txt"],
        "OVERLAYS/disable-bt.dtbo": BOOT["overlays/disable-bt.dtbo"],
    }

    assert fat.stage(phony_master, BOOT_START, same) == []


@pytest.mark.parametrize("name", ["a:b", "a/../b", "", "a\nb", "dot.", "a//b", 'q"', "./x"])
def test_refuses_names_that_fat_cannot_hold(phony_master, name):
    with pytest.raises(ImageError, match="not a name that a FAT"):
        fat.stage(phony_master, BOOT_START, {name: b""})


def test_refuses_a_file_over_a_directory_and_a_full_volume(phony_master, tmp_path):
    with pytest.raises(ImageError, match="is a directory"):
        fat.stage(phony_master, BOOT_START, {"overlays": b"x"})
    image = make_fat(tmp_path / "fat.img", 12, MIB)

    with pytest.raises(ImageError, match="no room"):
        fat.stage(image, 0, {"big": bytes(2 * MIB)})


def test_names_that_look_like_options_or_drives(phony):
    writes = {"-n": b"1", "@file": b"2", "a[b]c": b"3", "x*y".replace("*", "+"): b"4"}

    fat.write_files(phony, BOOT_START, writes)

    assert fat.read_files(phony, BOOT_START, writes) == writes


def test_allocated_covers_every_byte_that_counts(phony):
    ranges = fat.allocated(phony, BOOT_START)
    with phony.open("r+b") as file:
        at = BOOT_START
        for start, length in [*ranges, (BOOT_START + 36 * MIB, 0)]:
            file.seek(at)
            file.write(b"\xff" * (start - at))
            at = start + length

    fat.check(phony, BOOT_START)
    assert fat.read_files(phony, BOOT_START, BOOT) == BOOT
    assert sum(length for _, length in ranges) < 2 * MIB


def test_check_finds_damage(phony):
    fat.check(phony, BOOT_START)
    with phony.open("r+b") as file:
        file.seek(BOOT_START + 32 * 512 + 40)
        file.write(b"\x07\0\0\0")

    with pytest.raises(ImageError, match="not clean\n    ") as refused:
        fat.check(phony, BOOT_START)
    assert "fsck.fat " not in refused.value.message
    assert "volume" not in refused.value.message


def test_refuses_what_is_no_fat(phony_master, tmp_path):
    with pytest.raises(ImageError, match="no FAT file system"):
        fat.list_tree(phony_master, BOOT_START + 512)


def test_refuses_directory_loops(tmp_path):
    image = make_fat(tmp_path / "fat.img", 12, MIB)
    fat.write_files(image, 0, {"OUTER/INNER/x": b""})
    raw = bytearray(image.read_bytes())
    outer, inner = raw.index(b"OUTER      \x10"), raw.index(b"INNER      \x10")
    raw[inner + 26 : inner + 28] = raw[outer + 26 : outer + 28]
    image.write_bytes(raw)

    with pytest.raises(ImageError, match="contains itself"):
        fat.list_tree(image, 0)


@pytest.fixture(scope="module", params=[12, 32])
def small(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "fat.img"
    size = MIB if request.param == 12 else 34 * MIB
    make_fat(path, request.param, size, "-s", "1")
    fat.write_files(path, 0, {"config.txt": b"c" * 3000, "a long name/file": b"x"})
    return path


@settings(max_examples=60, deadline=None)
@given(
    edits=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 90), st.integers(512, 1 << 16)),
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_damage_is_an_image_error_and_nothing_else(small, edits):
    image = small.with_name("damaged.img")
    if not image.exists():
        subprocess.run(["cp", "--sparse=always", small, image], check=True)
    with small.open("rb") as source, image.open("r+b") as file:
        file.write(source.read(1 << 17))
        for at, data in edits:
            file.seek(at)
            file.write(data)

    try:
        tree = fat.list_tree(image, 0)
        fat.read_files(image, 0, tree)
        fat.allocated(image, 0)
    except ImageError:
        pass
