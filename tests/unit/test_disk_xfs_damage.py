"""The XFS reader against images that want to harm it: what is broken is an `ImageError` and nothing else."""

from __future__ import annotations

import struct
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xfs_images import SIZE, Node, make_xfs, summed, xfs_db

from piimage.disk.slots import Patch
from piimage.disk.sparse import data_ranges
from piimage.disk.xfs import check, open_xfs
from piimage.errors import ImageError

BLOCK = 4096
CONTENT = b"".join(n.to_bytes(4, "big") for n in range(16 * BLOCK // 4))
TREE = {
    "short": Node({"a": Node(b"1"), "bb": Node("a"), "ccc": Node({})}),
    "single": Node({f"{n:02}-{'s' * 40}": Node(b"") for n in range(20)}),
    "many": Node({f"{n:02}-{'m' * 200}": Node(b"") for n in range(40)}),
    "tree": Node(CONTENT),
    "spare": Node(bytes(64 * BLOCK)),
    "attributes": Node(b"x"),
}
#: Blocks of the file /spare that a test may fill with what it likes.
SPARE = 64


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image with each form that mkfs.xfs and xfs_db make; nobody writes to it."""
    path = make_xfs(tmp_path_factory.mktemp("xfs") / "xfs.img", TREE)
    names = [f"attr_set -u -v 100 {'n' * 30}-{n:02}" for n in range(60)]
    remote = ["attr_set -u -v 9000 remote", "attr_set -r -v 4000 other"]
    xfs_db(path, "path /attributes", *names, *remote, write=True)
    xfs_db(path, "path /short/a", "attr_set -s -v 30 selinux", write=True)
    check(path, 0, SIZE)
    return path


class Place:
    """Where things lie in the image, to be overwritten."""

    def __init__(self, image):
        self.image = image
        with open_xfs(image, 0) as xfs:
            self.inodes = dict(xfs.walk())
            superblock = xfs.inodes.superblock
            self.uuid = superblock.uuid
            self.at = {p: superblock.inode_place(i.number) for p, i in self.inodes.items()}
            self.spare = xfs.runs(self.inodes["/spare"])[0].physical
            self.content = xfs.runs(self.inodes["/tree"])[0].physical
            self.blocks = {
                path: [run.physical + i for run in xfs.runs(inode) for i in range(run.count)]
                for path, inode in self.inodes.items()
                if inode.kind == "dir" and inode.raw[5] == 2
            }
            fork = xfs.inodes.attribute_fork(self.inodes["/attributes"])
            self.attributes = [
                run.physical + i
                for run in xfs.inodes.fork_runs(self.inodes["/attributes"], fork)
                for i in range(run.count)
            ]  #: Where blocks have their checksum.
            self.sums = {
                **{block: 4 for blocks in self.blocks.values() for block in blocks},
                **dict.fromkeys(self.attributes, 12),
                **dict.fromkeys(range(self.spare, self.spare + SPARE), 64),
            }

    def read(self, at, length):
        with self.image.open("rb") as file:
            file.seek(at)
            return file.read(length)

    def find(self, path, data):
        """Byte offset of `data` in the blocks of a directory."""
        for block in self.blocks[path]:
            raw = self.read(block * BLOCK, BLOCK)
            if data in raw:
                return block * BLOCK + raw.index(data)
        raise AssertionError(data)


@pytest.fixture(scope="module")
def place(image):
    return Place(image)


def extent(logical, physical, count, flag=0):
    whole = flag << 127 | logical << 73 | physical << 21 | count
    return whole.to_bytes(16, "big")


def node(place, at, level, entries, *, path="/tree"):
    """A block of an extent tree at block `at`: extents, or numbers of blocks below."""
    head = struct.pack(
        ">4sHHQQQQ16sQII", b"BMA3", level, len(entries), 2**64 - 1, 2**64 - 1, at * BLOCK // 512, 0,
        place.uuid, place.inodes[path].number, 0, 0,
    )  # fmt: skip
    if level:
        room = (BLOCK - 72) // 16
        body = bytes(room * 8) + b"".join(each.to_bytes(8, "big") for each in entries)
    else:
        body = b"".join(entries)
    return Patch(at * BLOCK, (head + body).ljust(BLOCK, b"\0"))


def rooted(place, level, children, count, *, path="/tree"):
    """What makes an inode's data a tree of `count` extents, below blocks `children`."""
    at, room = place.at[path], (512 - 176 - 4) // 16
    root = struct.pack(">HH", level, len(children)) + bytes(room * 8)
    root += b"".join(each.to_bytes(8, "big") for each in children)
    return [
        Patch(at + 5, b"\3"),
        Patch(at + 76, count.to_bytes(4, "big")),
        Patch(at + 176, root.ljust(512 - 176, b"\0")),
    ]


def sealed(place, patches):
    """The patches, and right checksums in all inodes and blocks that they touch."""
    touched = {}
    for at, data in ((patch.offset, patch.data) for patch in patches):
        for block in range(at // BLOCK, (at + len(data) - 1) // BLOCK + 1):
            touched.setdefault(block, place.read(block * BLOCK, BLOCK))
    for block, raw in touched.items():
        changed = bytearray(raw)
        for patch in patches:
            for at, byte in enumerate(patch.data, patch.offset - block * BLOCK):
                if 0 <= at < BLOCK:
                    changed[at] = byte
        touched[block] = bytes(changed)
        if block in place.sums:
            touched[block] = summed(changed, place.sums[block])
        for at in range(0, BLOCK, 512):
            if block * BLOCK + at in place.at.values():
                inode = summed(touched[block][at : at + 512], 100)
                touched[block] = touched[block][:at] + inode + touched[block][at + 512 :]
    return [Patch(block * BLOCK, raw) for block, raw in touched.items()]


def whole(image, patches):
    """All that the reader tells of an image."""
    found = {}
    with open_xfs(image, 0, patches) as xfs:
        for path, inode in xfs.walk():
            data = (
                b"".join(xfs.pieces(inode))
                if inode.kind == "file" and inode.size < 1 << 26
                else None
            )
            target = xfs.link_target(inode) if inode.kind == "link" else None
            found[path] = (inode.mode, data, target, xfs.device(inode), xfs.attributes(inode))
        return found, xfs.allocated(), xfs.settings(), xfs.uuid


def test_extents_in_a_tree(image, place):
    base, spare = place.content, place.spare
    extents = [extent(n, base + n, 1) for n in range(16)]
    patches = [
        *rooted(place, 2, [spare], 16),
        node(place, spare, 1, [spare + 1, spare + 2]),
        node(place, spare + 1, 0, extents[:7]),
        node(place, spare + 2, 0, extents[7:]),
    ]

    assert whole(image, sealed(place, patches))[0]["/tree"][1] == CONTENT


def trees(place):
    """Broken trees of extents."""
    base, s = place.content, place.spare
    some = [extent(n, base + n, 1) for n in range(16)]
    twice = [*rooted(place, 1, [s, s], 32), node(place, s, 0, some)]
    deep = [*rooted(place, 9, [s], 16), *(node(place, s + n, 8 - n, [s + n + 1] * 200) for n in range(8)),
            node(place, s + 8, 0, some[:1])]  # fmt: skip
    return {
        "a leaf twice": twice,
        "itself below": [*rooted(place, 2, [s], 16), node(place, s, 1, [s])],
        "200 to the power of 8 leaves": deep,
        "too deep": rooted(place, 10, [s], 16),
        "no level": rooted(place, 0, [s], 16),
        "no children": rooted(place, 1, [], 16),
        "an empty leaf": [*rooted(place, 1, [s], 0), node(place, s, 0, [])],
        "a leaf too full": [
            *rooted(place, 1, [s], 16), node(place, s, 0, some),
            Patch(s * BLOCK + 6, b"\1\0"),
        ],
        "miscounted": [*rooted(place, 1, [s], 15), node(place, s, 0, some)],
        "of another": [*rooted(place, 1, [s], 16), node(place, s, 0, some, path="/spare")],
        "backwards": [*rooted(place, 1, [s], 16), node(place, s, 0, some[::-1])],
        "without length": [*rooted(place, 1, [s], 1), node(place, s, 0, [extent(0, base, 0)])],
        "beyond the group": [
            *rooted(place, 1, [s], 1), node(place, s, 0, [extent(0, base, (1 << 21) - 1)]),
        ],
        "beyond the end": [
            *rooted(place, 1, [s], 1), node(place, s, 0, [extent(0, (1 << 52) - 1, 1)]),
        ],
        "the headers of a group": [
            *rooted(place, 1, [s], 1), node(place, s, 0, [extent(0, 0, 1)]),
        ],
        "children nowhere": rooted(place, 1, [(1 << 64) - 1], 1),
    }  # fmt: skip


def inodes(place):
    """Broken inodes."""
    file, link, directory = (place.at[p] for p in ("/tree", "/short/bb", "/short"))
    return {
        "no magic": [Patch(file, b"XX")],
        "version 2": [Patch(file + 4, b"\2")],
        "of another place": [Patch(file + 152, bytes(8))],
        "of another file system": [Patch(file + 160, b"x")],
        "free": [Patch(file + 2, bytes(2))],
        "no link": [Patch(file + 16, bytes(4))],
        "of no type": [Patch(file + 2, b"\xf1\xff")],
        "a file with content of its own": [Patch(file + 5, b"\1")],
        "of the realtime section": [Patch(file + 91, b"\1")],
        "of negative size": [Patch(file + 56, b"\xff")],
        "too many extents": [Patch(file + 76, b"\x7f\xff\xff\xff")],
        "more than 64 bits count": [Patch(file + 127, b"\x18"), Patch(file + 24, b"\xff" * 8)],
        "attributes beyond the inode": [Patch(file + 82, b"\xff")],
        "attributes of no form": [Patch(place.at["/short/a"] + 83, b"\7")],
        "an empty link": [Patch(link + 56, bytes(8))],
        "a long link": [Patch(link + 56, (1025).to_bytes(8, "big"))],
        "a link shorter than it says": [Patch(link + 56, (400).to_bytes(8, "big"))],
        "a link in blocks that are none": [
            Patch(link + 5, b"\2"), Patch(link + 76, b"\0\0\0\1"),
            Patch(link + 176, extent(0, place.spare, 1)),
        ],
        "a directory without room": [Patch(directory + 56, bytes(8))],
        "a directory larger than the inode": [Patch(directory + 56, b"\0\0\0\0\0\0\7\0")],
        "more names than bytes": [Patch(directory + 176, b"\xff")],
    }  # fmt: skip


def directories(place):
    """Broken directories."""
    single, many = place.blocks["/single"][0] * BLOCK, place.blocks["/many"][0] * BLOCK
    short = place.at["/short"] + 176
    name = place.find("/single", b"00-ssss")
    last = place.find("/single", b"19-ssss")
    reference = place.read(short, 60)
    at = short + reference.index(b"ccc")
    root = place.inodes["/"].number
    return {
        "itself below": [Patch(at + 4, root.to_bytes(4, "big"))],
        "an inode that is none": [Patch(at + 4, b"\xff\xff\xff\xff")],
        "a slash": [Patch(at, b"c/c")],
        "a zero": [Patch(name, b"0\0")],
        "a name twice": [Patch(last, b"00")],
        "two single letters": [Patch(at, b"a"), Patch(at - 3, b"\1")],
        "no magic": [Patch(single, b"XXXX")],
        "of another place": [Patch(single + 8, b"\1")],
        "of another file system": [Patch(many + 24, b"\1")],
        "of another directory": [Patch(many + 40, bytes(8))],
        "an empty name": [Patch(name - 1, b"\0")],
        "a record beyond the block": [Patch(single + BLOCK - 8, b"\0\0\1\xe0")],
        "more hashes than bytes": [Patch(single + BLOCK - 8, b"\xff\xff\xff\xff")],
        "an unused record without length": [Patch(single + 64, b"\xff\xff\0\0")],
        "an unused record of odd length": [Patch(single + 64, b"\xff\xff\0\7")],
        "an unused record beyond the block": [Patch(single + 64, b"\xff\xff\xff\xf8")],
        "too large": [
            *rooted(place, 1, [place.spare], 1, path="/single"),
            node(place, place.spare, 0, [extent(0, 12, 17000)], path="/single"),
        ],
        "not written": [Patch(place.at["/single"] + 176, b"\x80")],
    }  # fmt: skip


def attributes(place):
    """Broken attributes."""
    root, *rest = (block * BLOCK for block in place.attributes)
    leaf = next(b for b in rest if place.read(b + 8, 2) == b"\x3b\xee")
    remote = next(b for b in rest if place.read(b, 4) == b"XARM")
    short = place.at["/short/a"] + 176 + place.read(place.at["/short/a"] + 82, 1)[0] * 8
    first = int.from_bytes(place.read(leaf + 84, 2), "big")
    return {
        "a tree in itself": [Patch(root + 64 + 4, bytes(4))],
        "a leaf twice": [Patch(root + 64 + 8 + 4, place.read(root + 64 + 4, 4))],
        "a block that is none": [Patch(root + 64 + 4, b"\xff" * 4)],
        "no magic": [Patch(root + 8, b"XX")],
        "no children": [Patch(root + 56, bytes(2))],
        "too many children": [Patch(root + 56, b"\xff\xff")],
        "too many names": [Patch(leaf + 56, b"\xff\xff")],
        "of another place": [Patch(leaf + 16, b"\1")],
        "of another inode": [Patch(leaf + 48, b"\1")],
        "of another file system": [Patch(leaf + 32, b"\1")],
        "a name in the header": [Patch(leaf + 84, b"\0\1")],
        "a name at the end": [Patch(leaf + 84, b"\x0f\xff")],
        "a value beyond the block": [Patch(leaf + first, b"\xff\xff")],
        "a name twice": [Patch(leaf + 88, place.read(leaf + 80, 8))],
        "a remote value without magic": [Patch(remote, b"XXXX")],
        "a remote value of other length": [Patch(remote + 8, b"\0\0\0\1")],
        "a remote value elsewhere": [Patch(remote + 40, b"\1")],
        "an inode with more than fit": [Patch(short + 2, b"\xff")],
        "an inode with a long value": [Patch(short + 5, b"\xff")],
        "an inode with no room": [Patch(short, b"\0\0")],
    }


@pytest.mark.parametrize("make", [trees, inodes, directories, attributes])
def test_what_contradicts_itself_is_refused(image, place, make):
    began = time.process_time()
    fates = {
        name: fate(whole, image, sealed(place, patches)) for name, patches in make(place).items()
    }

    assert [name for name, words in fates.items() if "is damaged: " not in words] == []
    assert time.process_time() - began < 5


def test_a_bit_that_has_flipped_is_told(image, place):
    """In places that nothing here looks at: only the checksum knows."""
    root, *rest = (block * BLOCK for block in place.attributes)
    unused = {
        "an inode's time of access": place.at["/tree"] + 32,
        "the end of a block of names": place.blocks["/single"][0] * BLOCK + BLOCK - 20,
        "the end of a block of attributes": root + BLOCK - 1,
        **{f"the serial number in block {n}": at + 24 for n, at in enumerate(rest)},
    }
    fates = {
        name: fate(whole, image, [Patch(at, bytes([place.read(at, 1)[0] ^ 0x10]))])
        for name, at in unused.items()
    }

    assert [name for name, words in fates.items() if "is damaged: " not in words] == []


def fate(read, *arguments):
    """The words of the `ImageError` that reading ends with."""
    try:
        read(*arguments)
    except ImageError as error:
        return error.message
    return "nothing was found"


def head(place, at, data):
    """The header of free space of the first group, with `data` at its byte `at`."""
    raw = place.read(512, 512)
    return Patch(512, summed(raw[:at] + data + raw[at + len(data) :], 216))


def free(place, block, level, entries, count=None):
    """A block of the first group's tree of free space: records, or blocks below."""
    raw = struct.pack(
        ">4sHHIIQQ16sII", b"AB3B", level, len(entries) if count is None else count, 2**32 - 1, 2**32 - 1,
        block * BLOCK // 512, 0, place.uuid, 0, 0,
    )  # fmt: skip
    if level:
        raw += bytes((BLOCK - 56) // 12 * 8) + b"".join(each.to_bytes(4, "big") for each in entries)
    else:
        raw += b"".join(struct.pack(">II", *each) for each in entries)
    return Patch(block * BLOCK, summed(raw.ljust(BLOCK, b"\0"), 52))


def spaces(place):
    """Broken free space."""
    root = int.from_bytes(place.read(512 + 16, 4), "big")
    total = int.from_bytes(place.read(512 + 52, 4), "big")
    length = int.from_bytes(place.read(512 + 12, 4), "big")
    two_levels = head(place, 28, b"\0\0\0\2")
    return {
        "a wrong checksum": [Patch(512 + 300, b"x")],
        "of another group": [head(place, 8, b"\0\0\0\1")],
        "of another length": [head(place, 12, b"\0\0\1\0")],
        "of another file system": [head(place, 64, bytes(16))],
        "no level": [head(place, 28, bytes(4))],
        "too deep": [head(place, 28, b"\0\0\0\x11")],
        "a root nowhere": [head(place, 16, b"\xff\xff\xff\xff")],
        "a root in the headers": [head(place, 16, bytes(4))],
        "a block with a wrong checksum": [Patch(root * BLOCK + 100, b"x")],
        "itself below": [two_levels, free(place, root, 1, [root])],
        "a leaf twice": [two_levels, free(place, root, 1, [root + 1] * 2), free(place, root + 1, 0, [(100, total)])],
        "300 to the power of 15": [
            head(place, 28, b"\0\0\0\x10"),
            *(free(place, root + n, 15 - n, [root + n + 1] * 300) for n in range(15)),
            free(place, root + 15, 0, []),
        ],
        "more than fit": [free(place, root, 0, [(100, total)], 0xFFFF)],
        "overlapping": [free(place, root, 0, [(100, total - 5), (104, 5)])],
        "touching": [free(place, root, 0, [(100, total - 5), (100 + total - 5, 5)])],
        "beyond the end": [free(place, root, 0, [(length - total + 1, total)])],
        "the headers": [free(place, root, 0, [(0, total)])],
        "nothing long": [free(place, root, 0, [(50, 0), (100, total)])],
        "less than the header says": [free(place, root, 0, [(100, total - 1)])],
    }  # fmt: skip


def test_free_space_that_contradicts_itself_is_refused(image, place):
    total = int.from_bytes(place.read(512 + 52, 4), "big")
    root = int.from_bytes(place.read(512 + 16, 4), "big")
    right = [
        head(place, 28, b"\0\0\0\2"),
        free(place, root, 1, [root + 1, root + 2]),
        free(place, root + 1, 0, [(100, 5)]),
        free(place, root + 2, 0, [(106, total - 5)]),
    ]
    with open_xfs(image, 0, right) as xfs:
        assert xfs.allocated()[:2] == [(0, 100 * BLOCK), (105 * BLOCK, BLOCK)]

    began = time.process_time()
    fates = {name: fate(allocated, image, patches) for name, patches in spaces(place).items()}

    assert [name for name, words in fates.items() if "is damaged: " not in words] == []
    assert time.process_time() - began < 5


def allocated(image, patches):
    with open_xfs(image, 0, patches) as xfs:
        return xfs.allocated()


@pytest.fixture(scope="module")
def targets(image):
    """Offsets of all sectors with metadata that no checksum guards here, and those that one guards."""
    with open_xfs(image, 0) as xfs:
        superblock = xfs.inodes.superblock
        data = {
            run.physical + i
            for _, inode in xfs.walk()
            if inode.kind == "file"
            for run in xfs.runs(inode)
            for i in range(run.count)
        }
    log = range(superblock.log_start, superblock.log_start + superblock.log_blocks)
    found = []
    with image.open("rb") as file:
        for start, length in data_ranges(file.fileno()):
            for at in range(start, start + length, 512):
                block = at // BLOCK
                if block in data or block in log:
                    continue
                file.seek(at)
                if any(file.read(512)):
                    found.append(at)
    return found


EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 511), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(edits=EDITS)
def test_damage_is_an_image_error_and_nothing_else(image, targets, edits):
    began = time.process_time()
    patches = [Patch(targets[which % len(targets)] + at, data) for which, at, data in edits]
    with suppress(ImageError):
        whole(image, patches)

    assert time.process_time() - began < 2


@settings(max_examples=150, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(4, 260), st.binary(min_size=1, max_size=4)), max_size=4)
)
def test_damage_under_a_right_checksum_too(image, place, edits):
    superblock, group = bytearray(place.read(0, 512)), bytearray(place.read(512, 512))
    for at, data in edits:
        superblock[at : at + len(data)] = data
        group[at : at + len(data)] = data
    for patches in (
        [Patch(0, summed(superblock, 224))],
        [Patch(512, summed(group, 216))],
    ):
        began = time.process_time()
        with suppress(ImageError):
            whole(image, patches)

        assert time.process_time() - began < 2
