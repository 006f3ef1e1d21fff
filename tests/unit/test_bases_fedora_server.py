"""What makes Fedora Server's image another than Minimal's: XFS, and a root in a logical volume."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures import fedora, fedora_server, lvm
from fixtures.card import MIB, SECTOR, text
from fixtures.lvm import Group

from piimage.bases.facts_reader import read_facts
from piimage.disk.sparse import copy_sparse
from piimage.errors import ImageError, UnsupportedError
from piimage.verify.examine import examine
from piimage.verify.known import Known

NUMBERS = (41, 42, 43, 44)
SIZE = 320 * MIB
#: Extents, names and places that no image has by itself.
GROUPS = [
    pytest.param(fedora_server.BESIDE, id="beside-others"),
    pytest.param(Group(name="fedora-server", root="root-1", wraps=True), id="renamed"),
    pytest.param(Group(extent=MIB, first=3 * MIB, gap=7, free=2), id="small-extents"),
    pytest.param(Group(extent=32 * MIB, before=(("a", 1),), seed="two"), id="large-extents"),
]


def card_of(number):
    return fedora_server.server(number, root_size=SIZE)


def facts(card, home):
    return read_facts(card.write(home / "card.img"), image_id="c" * 64)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A group with an ext4 in it, so of a few MiB, and its layout."""
    card = fedora.minimal(fedora.OLD, root_size=24 * MIB)
    mounts = card.root["/etc/fstab"].content.decode()
    mounts = mounts.replace(f"UUID={fedora.ROOT_UUID}", "/dev/fedora/root")
    layout = replace(card.layout, group=Group())
    card = replace(card, layout=layout, root={**card.root, "/etc/fstab": text(mounts)})
    return card.write(tmp_path_factory.mktemp("small") / "card.img"), layout


def said(small, tmp_path, **words):
    """What is said of the small image with other `words` in the metadata of its group."""
    source, layout = small
    image = tmp_path / "card.img"
    copy_sparse(source, image)
    metadata = layout.group.text(layout.root_size)
    for old, new in words.values():
        assert metadata.count(old) == 1
        metadata = metadata.replace(old, new)
    at = layout.root_start * SECTOR
    lvm.write(image, at, layout.group, layout.root_size, metadata)
    with pytest.raises((ImageError, UnsupportedError)) as error:
        read_facts(image, image_id="c" * 64)
    return str(error.value)


@pytest.mark.parametrize("number", NUMBERS)
def test_mounts_are_found_in_the_volume_and_beside_it(number, tmp_path):
    card = card_of(number)
    found = facts(card, tmp_path)
    root = found.table.partition(found.mounts["/"])

    assert {place: n for place, n in found.mounts.items() if place != "/"} == {
        "/boot": 2,
        "/boot/efi": 1,
    }
    assert (root.volume, root.start, root.size) == (
        "fedora/root",
        card.layout.root_at,
        SIZE,
    )
    assert root.filesystem.type == found.table.partition(2).filesystem.type == "xfs"
    assert found.firmware == "/boot/efi"
    assert (found.os.id, found.os.version_id) == ("fedora", str(number))
    assert {"lvm2", "xfsprogs", "chrony"} <= found.packages.keys()
    assert f"/boot/vmlinuz-{fedora_server.release(number).kernel}" in found.files


@pytest.mark.parametrize("group", GROUPS)
def test_the_root_is_where_its_group_has_it(group, tmp_path):
    card = fedora_server.server(43, group=group, root_size=SIZE)

    found = facts(card, tmp_path)

    root = found.table.partition(found.mounts["/"])
    assert (root.volume, root.start) == (f"{group.name}/{group.root}", card.layout.root_at)
    others = {v.volume: v.size for v in found.table.volumes if v != root}
    assert others == {
        f"{group.name}/{name}": count * group.extent for name, count in group.before + group.after
    }
    assert found.table.outside(root).number == 3


def test_a_root_in_an_xfs_without_a_group_is_one(tmp_path):
    card = card_of(43)
    mounts = card.root["/etc/fstab"].content.decode()
    mounts = mounts.replace("/dev/mapper/fedora-root", f"UUID={fedora.ROOT_UUID}")
    card = replace(
        card,
        layout=replace(card.layout, group=None),
        root={**card.root, "/etc/fstab": text(mounts)},
    )

    found = facts(card, tmp_path)

    assert dict(found.mounts) == {"/": 3, "/boot": 2, "/boot/efi": 1}
    assert found.table.volumes == ()


def test_a_group_is_known_by_its_other_name_too(small):
    image, layout = small

    found = read_facts(image, image_id="c" * 64)

    root = found.table.partition(found.mounts["/"])
    assert (root.volume, root.start) == ("fedora/root", layout.root_at)
    assert root.filesystem.type == "ext4"


def test_a_volume_in_two_pieces_is_refused_with_what_was_seen(small, tmp_path):
    one = 'extent_count = 6\n\ntype = "striped"\nstripe_count = 1\n\nstripes = [\n"pv0", 0\n]\n}\n'
    two = one.replace("6", "2") + "segment2 {\nstart_extent = 2\n" + one.replace("6", "3")
    two = two.replace('"pv0", 0\n]\n}\nsegment2', '"pv0", 4\n]\n}\nsegment2')

    message = said(
        small,
        tmp_path,
        counted=("segment_count = 1", "segment_count = 2"),
        pieces=(one, two.replace("extent_count = 3", "extent_count = 4")),
    )

    assert "`fedora/root` type linear, in 2 pieces" in message


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (
            'stripe_count = 1\n\nstripes = [\n"pv0", 0\n]',
            'stripe_count = 2\nstripe_size = 128\n\nstripes = [\n"pv0", 0,\n"pv0", 3\n]',
            "striped",
        ),
        ('type = "striped"', 'type = "thin"\nthin_pool = "pool00"\ndevice_id = 1', "thin"),
        ('type = "striped"', 'type = "raid1"', "raid1"),
    ],
    ids=["striped", "thin", "raid1"],
)
def test_a_volume_that_is_no_plain_one_is_refused_with_what_was_seen(
    old, new, kind, small, tmp_path
):
    message = said(small, tmp_path, changed=(old, new))

    assert f"2 ext4 `boot`, 3 LVM2_member, `fedora/root` type {kind}" in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("extent_count = 6\n", "extent_count = 7\n"),
        ('"pv0", 0\n', '"pv0", 1\n'),
        ("extent_size = 8192", 'extent_size = "8192"'),
        ('"pv0", 0\n', '"pv1", 0\n'),
    ],
    ids=["too-long", "beyond-the-end", "no-number", "on-another-disk"],
)
def test_a_group_that_contradicts_itself_is_refused(old, new, small, tmp_path):
    message = said(small, tmp_path, changed=(old, new))

    assert "is damaged" in message or "type on another disk" in message


@pytest.mark.parametrize(
    ("near", "what"),
    [
        (b"LVM2 001", "checksum of its label"),
        (b" LVM2 x[5A%r0N*>", "header of its metadata"),
        (b"seqno = 4", "checksum of its metadata"),
    ],
    ids=["label", "area", "text"],
)
def test_a_checksum_that_is_wrong_is_told(near, what, small, tmp_path):
    source, layout = small
    image = tmp_path / "card.img"
    copy_sparse(source, image)
    with image.open("r+b") as file:
        file.seek(layout.root_start * SECTOR)
        begin = file.read(MIB)
        assert begin.count(near) == 1
        file.seek(layout.root_start * SECTOR + begin.index(near) + len(near) + 12)
        file.write(b"\xff")

    with pytest.raises(ImageError, match=f"damaged: the {what}"):
        read_facts(image, image_id="c" * 64)


def test_an_entry_whose_root_is_no_volume_of_the_card_is_found(tmp_path):
    card = card_of(43)
    path = next(p for p in card.middle if p.startswith("/loader/entries/") and "fc43" in p)
    words = card.middle[path].data.decode().replace("fedora-root", "fedora-other")
    card = replace(card, middle={**card.middle, path: text(words)})

    found = examine(card.write(tmp_path / "card.img"), Known())

    told = {(f.rule, f.path) for f in found.findings if f.rule in ("PI201", "PI202", "PI203")}
    assert told == {("PI202", f"/boot{path}")}
