"""The XFS reader against xfsprogs, and against images that want to harm it."""

from __future__ import annotations

import os
import random
import re
import stat
import struct
import time

import pytest
from xfs_images import MIB, SIZE, Node, make_xfs, resummed, xfs_db

from piimage.disk.slots import Patch
from piimage.disk.sparse import copy_sparse, data_ranges
from piimage.disk.xfs import check, open_xfs
from piimage.errors import ImageError, UnsupportedError

BIG = random.Random(1).randbytes(3 * MIB + 5)
TREE = {
    "etc": Node(
        {
            "passwd": Node(b"root:x:0:0::/root:/bin/sh\n", 0o644),
            "shadow": Node(b"root:*:1::::::\n", 0o600, 0, 42),
            "link": Node("passwd", 0o777),
            # One that the inode has no room for would do, but mkfs.xfs 6.1 forgets its header.
            "far": Node("d/" * 100 + "passwd", 0o777),
            "empty": Node(b"", 0o640, 70000, 1 << 31),
        }
    ),
    "bin": Node("usr/bin", 0o777),
    "big": Node(BIG, 0o444),
    "dev": Node({"tty": Node((5, 300), 0o620), "none": Node({}, 0o700)}),
    "one": Node({f"{n:03}-in-a-block": Node(b"%d" % n) for n in range(50)}),
    "many": Node({f"{n:04}-{'x' * 60}": Node(b"") for n in range(150)}),
}


def flattened(names, path=""):
    for name, node in names.items():
        yield f"{path}/{name}", node
        if isinstance(node.data, dict):
            yield from flattened(node.data, f"{path}/{name}")


ALL = dict(flattened(TREE))
FILES = {path: node.data for path, node in ALL.items() if isinstance(node.data, bytes)}


@pytest.fixture(scope="session")
def master(tmp_path_factory):
    """The image of most tests; nobody writes to it."""
    return make_xfs(tmp_path_factory.mktemp("xfs") / "xfs.img", TREE)


@pytest.fixture
def own(master, tmp_path):
    """A copy of the test's own."""
    copy_sparse(master, tmp_path / "own.img")
    return tmp_path / "own.img"


def seen(image, *patches, offset=0):
    """Everything in an image, as `TREE` would be seen."""
    with open_xfs(image, offset, patches) as xfs:
        found = {}
        for path, inode in xfs.walk():
            data: object = b"".join(xfs.pieces(inode)) if inode.kind == "file" else None
            if inode.kind == "link":
                data = xfs.link_target(inode).decode()
            elif stat.S_ISCHR(inode.mode):
                data = xfs.device(inode)
            xfs.attributes(inode)
            found[path] = (inode.kind, stat.S_IMODE(inode.mode), inode.uid, inode.gid, data)
        return found


def kind_of(node):
    kinds: dict[type, str] = {bytes: "file", str: "link", dict: "dir", tuple: "other"}
    return kinds[type(node.data)]


EXPECTED = {"/": ("dir", 0o755, 0, 0, None)} | {
    path: (
        kind_of(node), node.mode, node.uid, node.gid,
        None if isinstance(node.data, dict) else node.data,
    )
    for path, node in ALL.items()
}  # fmt: skip


FLAVOURS = {
    "default": (),
    "1k": ("-b", "size=1024"),
    "64k": ("-b", "size=65536"),
    "no-reflink": ("-m", "reflink=0"),
    "old-times": ("-m", "bigtime=0"),
    "no-sparse-inodes": ("-i", "sparse=0"),
    "big-counters": ("-i", "nrext64=1"),
    "large-inodes": ("-i", "size=2048"),
    "large-directory-blocks": ("-n", "size=16k"),
    "reverse-map": ("-m", "rmapbt=1"),
    "no-free-inode-tree": ("-m", "finobt=0,inobtcount=0"),
    "large-sectors": ("-s", "size=4096"),
    "striped-log": ("-l", "su=32k"),
    "odd-groups": ("-d", "agcount=3"),
    "1k-in-16k-directory-blocks": ("-b", "size=1024", "-n", "size=16k"),
}


@pytest.mark.parametrize("options", FLAVOURS.values(), ids=FLAVOURS)
def test_all_is_there_in_whatever_way_it_was_made(tmp_path, options):
    image = make_xfs(tmp_path / "x.img", TREE, *options, size=SIZE + 7 * 65536)

    assert seen(image) == EXPECTED
    assert free_blocks(image) == free_for_xfs_db(image)


def free_blocks(image):
    with open_xfs(image, 0) as xfs:
        block, count = xfs.block_size, xfs.inodes.superblock.blocks
        free = bytearray(b"\1" * count)
        for start, length in xfs.allocated():
            assert start % block == length % block == 0
            free[start // block : (start + length) // block] = bytes(length // block)
        # What the groups keep for their own trees is free for the superblock.
        assert 0 < xfs.free // block - sum(free) < 200
        assert xfs.used + xfs.free == count * block
        return free


def free_for_xfs_db(image):
    """The same by `freesp`, which calls free also what the groups keep for their own trees."""
    numbers = xfs_db(image, "sb 0", "p dblocks agcount agblocks")
    blocks, groups, length = map(int, re.findall(r"= (\d+)", numbers))
    free = bytearray(blocks)
    listed = xfs_db(image, "freesp -d").partition("from")[0]
    for group, first, count in re.findall(r"^ *(\d+) +(\d+) +(\d+)$", listed, re.MULTILINE):
        start = int(group) * length + int(first)
        free[start : start + int(count)] = b"\1" * int(count)
    lists = [each for group in range(groups) for each in (f"agfl {group}", "p bno")]
    for group, kept in enumerate(xfs_db(image, *lists).splitlines()):
        for at in re.findall(r"\d+:(\d+)", kept):
            assert free[group * length + int(at)]
            free[group * length + int(at)] = 0
    return free


def test_the_forms_that_the_tree_is_to_have(master):
    forms = {
        "/etc": "core.format = 1",
        "/one": "core.nextents = 1\n",
        "/many": "core.nextents = ",
        "/etc/link": "core.format = 1",
    }
    for path, words in forms.items():
        assert words in xfs_db(master, f"path {path}", "p core") + "\n", path
    assert "magic = 0x58444233" in xfs_db(master, "path /one", "dblock 0", "p bhdr.hdr.magic")
    assert "magic = 0x58444433" in xfs_db(master, "path /many", "dblock 0", "p dhdr.hdr.magic")


def test_what_xfs_db_says_of_an_inode(master):
    told = xfs_db(master, "path /etc/passwd", "inode", "p core")
    number = re.search(r"inode number is (\d+)", told)[1]
    mtime = re.search(r"core.mtime.sec = (.*)", told)[1]

    with open_xfs(master, 0) as xfs:
        inode = dict(xfs.walk("/etc/passwd"))["/etc/passwd"]
        uuid = xfs.uuid

        assert inode.number == int(number)
        assert time.ctime(inode.mtime) == time.strftime("%c", time.strptime(mtime))
        assert xfs.modified("/etc/passwd") == inode.mtime
        assert inode.links == 1
    assert xfs_db(master, "uuid") == f"UUID = {_uuid(uuid)}\n"


def _uuid(raw):
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def test_a_file_system_that_begins_later(master, tmp_path):
    late = tmp_path / "late.img"
    with master.open("rb") as source, late.open("wb") as target:
        target.truncate(MIB + SIZE)
        for start, length in data_ranges(source.fileno()):
            os.copy_file_range(source.fileno(), target.fileno(), length, start, MIB + start)

    assert seen(late, offset=MIB) == EXPECTED
    with open_xfs(late, MIB) as moved, open_xfs(master, 0) as first:
        assert moved.allocated() == [(at + MIB, length) for at, length in first.allocated()]
        ((_, place, _),) = moved.extents("/etc/passwd")
    with late.open("rb") as file:
        assert _at(file, place, 26) == FILES["/etc/passwd"]


def test_extents_say_where_the_bytes_lie(own):
    with open_xfs(own, 0) as xfs:
        extents = xfs.extents("/big")
    with own.open("rb") as file:
        raw = b"".join(_at(file, where, length) for _, where, length in extents)

    assert raw == BIG


def _at(file, where, length):
    file.seek(where)
    return file.read(length)


def test_extents_refuse_what_cannot_be_overwritten_alone(own):
    xfs_db(own, "path /etc/passwd", "write core.nlinkv2 2", write=True)
    xfs_db(own, "path /etc/shadow", "write v3.flags2 0xa", write=True)
    xfs_db(own, "path /one/001-in-a-block", "write core.size 9000", write=True)
    xfs_db(own, "path /one/002-in-a-block", "write u3.bmx[0].extentflag 1", write=True)

    with open_xfs(own, 0) as xfs:
        for path, words in {
            "/etc/passwd": "hard links",
            "/etc/shadow": "shares blocks",
            "/one/001-in-a-block": "hole",
            "/one/002-in-a-block": "reserved but not written",
            "/bin": "no regular file",
            "/none": "has no",
        }.items():
            with pytest.raises(ImageError, match=words):
                xfs.extents(path)
        reserved = xfs.read_files(["/one/002-in-a-block"])

    assert reserved == {"/one/002-in-a-block": b"\0"}


def test_what_xfs_repair_is_too_old_for_is_told(own):
    with own.open("r+b") as file:
        file.write(
            of_superblock(own, 216, b"\0\0\0\xcb").data
        )  # exchange and parent pointers, of 6.10

    with pytest.raises(UnsupportedError, match="is too old for the xfs file system at byte 0"):
        check(own, 0, SIZE)


def test_flags_of_chattr_have_the_bits_of_ext4(own):
    xfs_db(own, "path /etc/passwd", "write core.immutable 1", write=True)
    xfs_db(own, "path /etc/shadow", "write core.append 1", write=True)

    with open_xfs(own, 0) as xfs:
        flags = {path: inode.flags & 0x30 for path, inode in xfs.walk("/etc")}

    assert {path: each for path, each in flags.items() if each} == {
        "/etc/passwd": 0x10,
        "/etc/shadow": 0x20,
    }


def test_attributes(own):
    sets = {
        "/etc/passwd": ["-s -v 3 selinux"],
        "/etc/link": ["-s -v 26 selinux", "-u -v 1 a"],
        "/big": ["-u -v 5000 remote", "-u -v 65536 most", "-r -v 17 root", "-s -v 300 capability"],
        "/many": [f"-u -v {n} {'name' * 8}-{n}" for n in range(1, 500)],
    }
    for path, commands in sets.items():
        xfs_db(own, f"path {path}", *(f"attr_set {each}" for each in commands), write=True)

    with open_xfs(own, 0) as xfs:
        found = {path: xfs.attributes(inode) for path, inode in xfs.walk() if path in sets}
        assert xfs.attributes(xfs.inode(xfs.root)) == {}

    spaces = {"-s": "security.", "-u": "user.", "-r": "trusted."}
    for path, commands in sets.items():
        words = [each.split() for each in commands]
        assert found[path] == {spaces[w[0]] + w[3]: b"v" * int(w[2]) for w in words}
    assert "0x3ebe" in xfs_db(own, "path /many", "ablock 0", "p hdr.info.hdr.magic")
    check(own, 0, SIZE)


@pytest.mark.parametrize("flag", [0x08, 0x80], ids=["parent", "incomplete"])
def test_attributes_that_are_none(own, flag):
    xfs_db(own, "path /etc/passwd", "attr_set -s -v 3 selinux", "attr_set -u -v 4 a", write=True)
    xfs_db(own, "path /big", "attr_set -u -v 5000 remote", "attr_set -u -v 9 b", write=True)
    with open_xfs(own, 0) as xfs:
        inodes = dict(xfs.walk())
        short = xfs.inodes.attribute_fork(inodes["/etc/passwd"])
        place = xfs.inodes.superblock.inode_place(inodes["/etc/passwd"].number)
        (leaf, *_) = xfs.inodes.fork_runs(inodes["/big"], xfs.inodes.attribute_fork(inodes["/big"]))
        entries = leaf.physical * xfs.block_size + 80
        names = [xfs.source.read(entries + i * 8 + 6, 1)[0] for i in (0, 1)]
    at = place + 512 - len(short.data) + 4 + 2
    first = entries + 8 * names.index(0) + 6  # the remote one has no flags
    patches = [
        resummed(own, place, 512, 100, [(at, bytes([flag | 4]))]),
        resummed(own, entries - 80, 4096, 12, [(first, bytes([flag]))]),
    ]
    with open_xfs(own, 0, patches) as xfs:
        # Those of /etc/passwd lie in the inode, which is read again.
        found = [xfs.attributes(xfs.inode(inodes[path].number)) for path in ("/etc/passwd", "/big")]

    assert found == [{"user.a": b"vvvv"}, {"user.b": b"v" * 9}]


def of_superblock(image, at, data):
    """A superblock whose bytes `at` are `data`, with a checksum that is right."""
    return resummed(image, 0, 512, 224, [(at, data)])


@pytest.mark.parametrize(
    ("at", "data", "words"),
    [
        (0, b"EXT4", "no xfs superblock"),
        (100, b"\xb4\xa4", "version 4, and version 5 alone"),
        (100, b"\xf4\xa5", "not supported: ascii-ci"),
        (102, b"\x02\x01", "damaged xfs superblock"),
        (4, b"\0\0\x20\0", "damaged xfs superblock"),
        (84, b"\0\0\0\0", "damaged xfs superblock"),
        (88, b"\0\0\0\5", "damaged xfs superblock"),
        (104, b"\x01\0", "damaged xfs superblock"),
        (123, b"\2", "damaged xfs superblock"),
        (124, b"\xff", "damaged xfs superblock"),
        (126, b"\1", "damaged xfs superblock"),
        (192, b"\xff", "damaged xfs superblock"),
        (96, b"\xff\xff\xff\xff", "which does not exist"),
        (23, b"\1", "not supported: a realtime section"),
        (48, bytes(8), "not supported: an external log"),
        (216, b"\0\0\1\x0b", "not supported: metadir"),
        (216, b"\1\0\2\x0b", "not supported: zoned, unknown bits 0x1000000"),
        (216, b"\0\0\0\x1b", "needs repair"),
    ],
)
def test_refuses_superblocks(master, at, data, words):
    with (
        pytest.raises(ImageError, match=words),
        open_xfs(master, 0, [of_superblock(master, at, data)]),
    ):
        pass


def test_refuses_a_superblock_with_a_wrong_checksum(master):
    with (
        pytest.raises(ImageError, match="damaged xfs superblock"),
        open_xfs(master, 0, [Patch(300, b"x")]),
    ):
        pass


def test_new_features_that_change_nothing_here_are_read(master):
    parents_and_exchange = of_superblock(master, 216, b"\0\0\0\xcb")

    assert seen(master, parents_and_exchange) == EXPECTED


def test_refuses_a_shortened_image(own):
    with own.open("r+b") as file:
        file.truncate(SIZE - 4096)

    with pytest.raises(ImageError, match="truncated"), open_xfs(own, 0):
        pass


def log_of(image):
    """Where the log begins, in bytes."""
    with open_xfs(image, 0) as xfs:
        return xfs.inodes.superblock.log_start * xfs.block_size


def record(turn, *, unmount, sectors=1):
    """A record of the log: its header, then what it holds."""
    header = struct.pack(">4sIIIQQIII", b"\xfe\xed\xba\xbe", turn, 2, sectors * 512, 0, 0, 0, 0, 1)
    body = struct.pack(">IIBBH", turn, 8, 0xAA, 0x20 if unmount else 0, 0).ljust(512, b"\0")
    rest = turn.to_bytes(4, "big").ljust(512, b"\0")
    return (
        header.ljust(320, b"\0")
        + (32 << 10).to_bytes(4, "big").ljust(192, b"\0")
        + body
        + rest * (sectors - 1)
    )


LOGS = {
    "never written": ([(0, bytes(2 * 512))], True),
    "unmounted": ([], True),
    "unmounted with much": ([(0, record(1, unmount=True, sectors=64))], True),
    "written, not unmounted": ([(1024, record(1, unmount=False))], False),
    "unmounted later": ([(1024, record(1, unmount=False) + record(1, unmount=True))], True),
    "half a record": ([(0, record(1, unmount=True, sectors=3)[:-512])], False),
    "a record of which the middle is missing": ([(2048, record(1, unmount=False))], True),
}


@pytest.mark.parametrize(("writes", "clean"), LOGS.values(), ids=LOGS)
def test_only_a_log_that_ends_in_an_unmount_is_clean(master, writes, clean):
    start = log_of(master)
    patches = [Patch(start + at, data) for at, data in writes]

    if clean:
        assert seen(master, *patches) == EXPECTED
    else:
        with (
            pytest.raises(ImageError, match="was not unmounted: its log"),
            open_xfs(master, 0, patches),
        ):
            pass


@pytest.mark.parametrize("turn", [2, 9])
def test_a_log_that_xfs_repair_made_anew(own, turn):
    xfs_db(own, f"logformat -c {turn}", write=True)

    assert seen(own) == EXPECTED
