"""The ext4 reader against e2fsprogs, and against images that want to harm it."""

from __future__ import annotations

import re
import struct
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phony import ROOT, ROOT_START, SEED, SLOTS, Node, make_phony

from piimage.disk import ext4
from piimage.disk.ext4_inode import Inodes
from piimage.disk.sparse import data_ranges
from piimage.disk.window import window
from piimage.errors import ImageError

MIB = 1 << 20


def small_phony(path, **options):
    return make_phony(path, root_size=16 * MIB, **options)


def debugfs(image, request, *, write=False):
    flags = ["-w"] if write else []
    argv = ["/usr/sbin/debugfs", *flags, "-R", request, f"{image}?offset={ROOT_START}"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def poke(image, at, data):
    with image.open("r+b") as file:
        file.seek(at)
        file.write(data)


def inode_place(image, path):
    """Byte offset of the inode at `path`, and its number."""
    with window(image, ROOT_START) as source:
        inodes = Inodes(source)
        number = int(re.search(rb"Inode: (\d+)", debugfs(image, f"stat {path}"))[1])
        group, index = divmod(number - 1, inodes.superblock.inodes_per_group)
        table = inodes.groups[group].inode_table * inodes.superblock.block_size
        return ROOT_START + table + index * inodes.superblock.inode_size, number


def test_lists_modes_owners_and_links(phony_master):
    tree = ext4.list_tree(phony_master, ROOT_START, ["/"])

    for path, node in ROOT.items():
        fact = tree[path]
        assert (fact.uid, fact.gid) == (node.uid, node.gid), path
        if isinstance(node.data, str):
            assert (fact.kind, fact.target) == ("link", node.data)
        else:
            assert fact.kind == ("dir" if node.data is None else "file")
            assert fact.mode == node.mode, path
            assert fact.content is None


def test_depth_and_absent_roots(phony_master):
    tree = ext4.list_tree(phony_master, ROOT_START, ["/etc", "/nowhere", "/bin"], max_depth=1)

    assert "/etc/ssh" in tree
    assert "/etc/ssh/sshd_config" not in tree
    assert tree["/bin"].kind == "link"
    assert "/nowhere" not in tree


def test_reads_what_debugfs_reads(phony_master):
    paths = [p for p, node in ROOT.items() if isinstance(node.data, bytes)]

    contents = ext4.read_files(phony_master, ROOT_START, paths)

    assert contents == {path: ROOT[path].data for path in paths}
    assert contents["/etc/shadow"] == debugfs(phony_master, "cat /etc/shadow")


def test_leaves_out_what_is_no_readable_file(phony_master):
    asked = ["/etc", "/nowhere/else", "/etc/hosts/below", f"{SEED}/user-data"]

    assert ext4.read_files(phony_master, ROOT_START, asked, limit=16383) == {}


def test_follows_links_inside_the_image_only(tmp_path):
    outside = tmp_path / "secret"
    outside.write_text("host")
    image = small_phony(
        tmp_path / "x.img",
        root={
            "/etc/hosts": Node("../../../etc/shadow"),
            "/etc/escape": Node(str(outside)),
            "/etc/loop": Node("loop"),
            "/etc/long": Node("./" * 40 + "passwd"),
        },
    )

    asked = ["/etc/hosts", "/etc/escape", "/etc/loop", "/etc/long", "/lib/os-release"]
    contents = ext4.read_files(image, ROOT_START, asked)

    assert set(contents) == {"/etc/hosts", "/etc/long", "/lib/os-release"}
    assert contents["/etc/hosts"] == ROOT["/etc/shadow"].data
    assert contents["/etc/long"] == ROOT["/etc/passwd"].data
    assert ext4.list_tree(image, ROOT_START, ["/etc/long"])["/etc/long"].target.endswith("passwd")


def test_names_with_newlines_and_quotes_forge_nothing(tmp_path):
    forged = '/etc/a\n/12/100644/0/0/passwd/1/\n"b'
    image = small_phony(
        tmp_path / "x.img", root={forged: Node(b"mine"), "/etc/\udcff": Node(b"raw")}
    )

    tree = ext4.list_tree(image, ROOT_START, ["/etc"])

    # The test's own name holds slashes, so it is a chain of directories; each is listed as it is.
    assert tree[forged].kind == "file"
    assert ext4.read_files(image, ROOT_START, [forged, "/etc/\udcff"]) == {
        forged: b"mine",
        "/etc/\udcff": b"raw",
    }


@pytest.mark.parametrize("bad", [b"sla/h", b"nu\0ll", b"passw"])
def test_refuses_impossible_names(tmp_path, bad):
    image = small_phony(tmp_path / "x.img", root={"/etc/XXXXX": Node(b""), "/etc/passw": Node(b"")})
    raw = image.read_bytes()
    poke(image, raw.index(b"\x05\x01XXXXX") + 2, bad)

    with pytest.raises(ImageError, match="holds the name"):
        ext4.list_tree(image, ROOT_START, ["/etc"])


def test_refuses_directory_loops(tmp_path):
    image = small_phony(tmp_path / "x.img", root={"/srv/outer/inner0": Node(None, 0o755)})
    _, outer = inode_place(image, "/srv/outer")
    at = image.read_bytes().index(b"\x06\x02inner0") - 6
    poke(image, at, outer.to_bytes(4, "little"))

    with pytest.raises(ImageError, match="contains itself"):
        ext4.list_tree(image, ROOT_START, ["/srv"])


@pytest.mark.parametrize(
    ("at", "data", "words"),
    [
        (56, b"\0\0", "no ext4 superblock"),
        (24, b"\x20", "damaged ext4 superblock"),
        (32, b"\0\0\0\0", "damaged ext4 superblock"),
        (4, b"\xff\xff\xff\x7f", "truncated"),
        (96, b"\xc6\x02\0\0", "journal waits for recovery"),
        (96, b"\xc2\x82\0\0", "inline_data"),
        (96, b"\xc2\x02\1\0", "encrypt"),
        (96, b"\xc2\x02\0\x40", "unknown bits 0x40000000"),
    ],
)
def test_refuses_superblocks(phony, at, data, words):
    poke(phony, ROOT_START + 1024 + at, data)

    with pytest.raises(ImageError, match=words):
        ext4.read_files(phony, ROOT_START, ["/etc/passwd"])


def test_refuses_truncated_root(phony):
    with phony.open("r+b") as file:
        file.truncate(ROOT_START + 50 * MIB)

    with pytest.raises(ImageError, match="truncated"):
        ext4.list_tree(phony, ROOT_START, ["/"])


def test_absent_image_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match="cannot read"):
        ext4.list_tree(tmp_path / "no.img", 0, ["/"])


@pytest.mark.parametrize("path", SLOTS)
def test_extents_say_where_the_bytes_lie(phony, path):
    content = bytes(range(256)) * (SLOTS[path] // 256)
    for at, where, length in ext4.extents(phony, ROOT_START, path):
        poke(phony, where, content[at : at + length])

    assert debugfs(phony, f"cat {path}") == content
    ext4.check(phony, ROOT_START)


@pytest.mark.parametrize("kind", ["ext2", "ext3"])
def test_indirect_blocks(tmp_path, kind):
    big = b"".join(n.to_bytes(4, "big") for n in range(400_000))  # reaches the double indirect
    image = small_phony(tmp_path / "x.img", root={"/big": Node(big)}, mke2fs=("-t", kind))

    assert ext4.read_files(image, ROOT_START, ["/big"]) == {"/big": big}
    pieces = ext4.extents(image, ROOT_START, "/big")
    raw = image.read_bytes()
    assert b"".join(raw[where : where + n] for _, where, n in pieces) == big


def test_extents_refuse_what_cannot_be_overwritten(phony):
    debugfs(phony, "ln /etc/passwd /etc/twin", write=True)
    debugfs(phony, "sif /etc/passwd links_count 2", write=True)
    debugfs(phony, "sif /etc/group size 9000", write=True)
    at, _ = inode_place(phony, "/etc/fstab")
    with phony.open("rb") as file:
        file.seek(at + 40 + 12)
        leaf = file.read(12)
    logical, length, high, low = struct.unpack("<IHHI", leaf)
    poke(phony, at + 52, struct.pack("<IHHI", logical, length + 32768, high, low))

    for path, words in {
        "/etc/passwd": "hard links",
        "/etc/group": "hole",
        "/etc/fstab": "reserved but not written",
        "/etc/os-release": "no regular file",
        "/etc/nothing": "has no",
    }.items():
        with pytest.raises(ImageError, match=words):
            ext4.extents(phony, ROOT_START, path)


def test_unwritten_extent_reads_as_zeros(phony):
    at, _ = inode_place(phony, "/etc/fstab")
    poke(phony, at + 52 + 4, (1 + 32768).to_bytes(2, "little"))

    content = ext4.read_files(phony, ROOT_START, ["/etc/fstab"])["/etc/fstab"]

    assert content == bytes(len(ROOT["/etc/fstab"].data))


FLAVOURS = {
    "default": ("-t", "ext4"),
    "1k": ("-t", "ext4", "-b", "1024"),
    "4k": ("-t", "ext4", "-b", "4096", "-g", "8192"),
    "ext2": ("-t", "ext2", "-b", "1024"),
    "ext3": ("-t", "ext3", "-b", "1024"),
    "no-flex": ("-t", "ext4", "-b", "1024", "-O", "^flex_bg"),
    "meta-bg": ("-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"),
    "super2": ("-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode"),
    "32bit": ("-t", "ext4", "-b", "1024", "-O", "^64bit,^metadata_csum,uninit_bg"),
    "all-backups": ("-t", "ext4", "-b", "1024", "-O", "^sparse_super,^resize_inode"),
}


@pytest.mark.parametrize("options", FLAVOURS.values(), ids=FLAVOURS)
def test_allocated_is_what_dumpe2fs_does_not_call_free(tmp_path, options):
    image = make_phony(tmp_path / "x.img", root_size=301 * MIB, mke2fs=options)
    alone = tmp_path / "root.img"  # dumpe2fs 1.47.2 takes `?offset=` for a tag such as LABEL=
    with image.open("rb") as source, alone.open("wb") as target:
        target.truncate(301 * MIB)
        for start, length in data_ranges(source.fileno(), ROOT_START, ROOT_START + 301 * MIB):
            source.seek(start)
            target.seek(start - ROOT_START)
            target.write(source.read(length))
    argv = ["/usr/sbin/dumpe2fs", str(alone)]
    text = subprocess.run(argv, capture_output=True, check=True).stdout.decode()
    block = int(re.search(r"Block size: +(\d+)", text)[1])
    count = int(re.search(r"Block count: +(\d+)", text)[1])
    used = bytearray(b"\1" * count)
    for line in re.findall(r"^  Free blocks: (.*)$", text, re.MULTILINE):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", line):
            used[int(first) : int(last or first) + 1] = bytes(int(last or first) + 1 - int(first))

    ours = bytearray(count)
    for start, length in ext4.allocated(image, ROOT_START):
        first = (start - ROOT_START) // block
        ours[first : first + length // block] = b"\1" * (length // block)

    assert ours == used
    assert any(f == 0 for f in used)
    # Where every group holds a backup, mke2fs 1.47.2 leaves no group's bitmap out.
    if not {"ext2", "ext3", "^sparse_super,^resize_inode"}.intersection(options):
        assert "BLOCK_UNINIT" in text


def test_check_tells_clean_from_broken(phony, tmp_path):
    ext4.check(phony, ROOT_START)
    odd = tmp_path / "a?offset=7 b.img"
    phony.rename(odd)
    ext4.check(odd, ROOT_START)
    with window(odd, ROOT_START) as source:
        inodes = Inodes(source)
    bitmap = inodes.groups[0].block_bitmap * inodes.superblock.block_size
    poke(odd, ROOT_START + bitmap, bytes(64))

    with pytest.raises(ImageError, match=r"not clean\n    (?!e2fsck|Pass).*[Bb]itmap"):
        ext4.check(odd, ROOT_START)


def test_a_large_etc_is_quick_and_indexed_directories_are_complete(tmp_path):
    many = {f"/etc/many/{n:04}-{'x' * 60}": Node(str(n).encode()) for n in range(1500)}
    image = small_phony(tmp_path / "x.img", root=many)
    subprocess.run(
        ["/usr/sbin/e2fsck", "-fyD", f"{image}?offset={ROOT_START}"],
        capture_output=True,
        check=False,
    )
    assert b"Root node dump" in debugfs(image, "htree_dump /etc/many")

    began = time.process_time()
    tree = ext4.list_tree(image, ROOT_START, ["/etc"])
    contents = ext4.read_files(image, ROOT_START, many)

    assert time.process_time() - began < 2
    assert set(many) <= set(tree)
    assert contents == {path: node.data for path, node in many.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The metadata of a small file system, to be damaged."""
    path = tmp_path_factory.mktemp("small") / "small.img"
    stage = path.parent / "stage"
    (stage / "etc").mkdir(parents=True)
    (stage / "etc/passwd").write_text("root")
    (stage / "etc/link").symlink_to("passwd")
    argv = ["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-N", "32", "-d", str(stage), str(path), "600k"]
    subprocess.run(argv, check=True, capture_output=True)
    return path


@settings(max_examples=150, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.integers(1024, 64 * 1024), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=12,
    )
)
def test_damage_is_an_image_error_and_nothing_else(small, edits):
    image = small.with_name("damaged.img")
    raw = bytearray(small.read_bytes())
    for at, data in edits:
        raw[at : at + len(data)] = data
    image.write_bytes(raw)

    try:
        tree = ext4.list_tree(image, 0, ["/"])
        ext4.read_files(image, 0, tree)
        ext4.allocated(image, 0)
        ext4.extents(image, 0, "/etc/passwd")
    except ImageError:
        pass
