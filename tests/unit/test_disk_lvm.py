"""Logical volumes: where they lie by metadata written by hand, and metadata that want to harm."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from fixtures import lvm as fixture
from fixtures.lvm import MIB, SECTOR, Group
from hypothesis import given
from hypothesis import strategies as st

from piimage.disk import lvm, lvm_text
from piimage.disk.window import window
from piimage.errors import ImageError

AT = 1 << 20
ROOT = 64 * MIB
BUSY = Group(name="a-b", extent=MIB, before=(("swap", 7),), gap=2, after=(("home", 5),), free=3)
SEGMENT = "segment_count = 1\n\nsegment1 {\nstart_extent = 0\nextent_count = 16\n"


def write(tmp_path, group=BUSY, text=None):
    image = tmp_path / "image.img"
    with image.open("wb") as file:
        file.truncate(AT + group.size(ROOT))
    fixture.write(image, AT, group, ROOT, text)
    return image


def read(image, group=BUSY):
    with window(image, AT) as source:
        return lvm.volumes(source, group.size(ROOT))


def changed(old, new, group=Group()):  # noqa: B008 -- frozen
    text = group.text(ROOT)
    assert text.count(old) == 1, old
    return text.replace(old, new)


@pytest.mark.parametrize("group", [Group(), BUSY, Group(wraps=True), Group(first=2 * MIB)])
def test_volumes_are_where_their_extents_are(tmp_path, group):
    found = read(write(tmp_path, group), group)

    places = {volume.name: volume.pieces for volume in found}
    assert places.pop("root") == ((AT + group.root_at, ROOT),)
    assert {name: length for name, ((_, length),) in places.items()} == {
        name: count * group.extent for name, count in (*group.before, *group.after)
    }
    assert {(volume.group, volume.kind) for volume in found} == {(group.name, "linear")}


def test_a_physical_volume_of_no_group_has_none(tmp_path):
    image = write(tmp_path)
    with image.open("r+b") as file:
        file.seek(AT + 4096 + 4)
        head = bytearray(file.read(SECTOR - 4))
        head[36:60] = bytes(24)  # its only place of metadata
        file.seek(AT + 4096)
        file.write(fixture._sum(bytes(head)).to_bytes(4, "little") + head)

    assert read(image) == []


def two_pieces(group=Group()):  # noqa: B008 -- frozen
    text = group.text(ROOT).replace("pe_count = 16", "pe_count = 40")
    second = 'segment2 {\nstart_extent = 12\nextent_count = 4\ntype = "striped"\nstripe_count = 1\n'
    second += 'stripes = ["pv0", 12]\n}\n'
    text = text.replace(SEGMENT, SEGMENT.replace("count = 1\n", "count = 2\n").replace("16", "12"))
    return text.replace("logical_volumes {\n\nroot {", f"logical_volumes {{\n\nroot {{\n{second}")


def test_neighbours_are_one_piece(tmp_path):
    (found,) = read(write(tmp_path, Group(), two_pieces()), Group())

    assert found.pieces == ((AT + MIB, ROOT),)


def test_pieces_are_in_the_volumes_order(tmp_path):
    text = two_pieces().replace('["pv0", 12]', '["pv0", 0]').replace('"pv0", 0\n', '"pv0", 4\n')

    (found,) = read(write(tmp_path, Group(), text), Group())

    extent = Group().extent
    assert found.pieces == ((AT + MIB + 4 * extent, 12 * extent), (AT + MIB, 4 * extent))


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ('type = "striped"', 'type = "thin"', "thin"),
        (
            'stripe_count = 1\n\nstripes = [\n"pv0", 0',
            'stripe_count = 2\n\nstripes = [\n"pv0", 0, "pv1", 0',
            "striped",
        ),
        ('stripes = [\n"pv0"', 'stripes = [\n"pv1"', "on another disk"),
    ],
)
def test_what_is_not_linear_has_no_place(tmp_path, old, new, kind):
    (found,) = read(write(tmp_path, Group(), changed(old, new)), Group())

    assert (found.kind, found.pieces) == (kind, ())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("extent_count = 16", "extent_count = 17", "lies outside the physical volume"),
        ('"pv0", 0', '"pv0", -1', "lies outside the physical volume"),
        ("pe_start = 2048", "pe_start = 0", "lies outside the physical volume"),
        ("extent_size = 8192", "extent_size = 81920", "lies outside the physical volume"),
        ("segment_count = 1", "segment_count = 2", "segments are missing"),
        ("start_extent = 0", "start_extent = 1", "do not follow each other"),
        ("stripe_count = 1", "stripe_count = 2", "stripes are missing"),
        ("extent_size = 8192", 'extent_size = "8192"', "`extent_size` is no number"),
        ("logical_volumes {", "logical_volumes = 1 x {", "`logical_volumes` is no section"),
        ("pe_start = 2048\n", "", "pe_start"),
    ],
)
def test_metadata_that_contradict_themselves_are_damage(tmp_path, old, new, words):
    image = write(tmp_path, Group(), changed(old, new))

    with pytest.raises(ImageError, match=f"LVM volume of `image.img` at byte {AT} is damaged") as e:
        read(image, Group())

    assert words in e.value.message


@pytest.mark.parametrize("name", [".", "..", "-r", "../r", "a/b", "r" * 128])
@pytest.mark.parametrize("what", ["root", "fedora"])
def test_names_that_lead_elsewhere_are_damage(tmp_path, what, name):
    text = f"\n{Group().text(ROOT)}".replace(f"\n{what} {{", f"\n{name} {{")

    with pytest.raises(ImageError, match=re.escape(f"`{name[:40]}` is no name")):
        read(write(tmp_path, Group(), text), Group())


@pytest.mark.parametrize("name", ["...", "+r", "_r-", ".r", "r" * 127])
def test_names_that_lvm_allows(tmp_path, name):
    text = Group().text(ROOT).replace("\nroot {", f"\n{name} {{")

    (found,) = read(write(tmp_path, Group(), text), Group())

    assert found.name == name


def test_volumes_that_overlap_are_damage(tmp_path):
    group = Group(after=(("home", 5),))
    text = group.text(ROOT).replace('"pv0", 16', '"pv0", 15')

    with pytest.raises(ImageError, match="volumes overlap"):
        read(write(tmp_path, group, text), group)


@given(place=st.integers(0, MIB - 1), mask=st.integers(1, 255))
def test_a_byte_that_is_changed_is_found_or_means_nothing(tmp_path_factory, place, mask):
    image = tmp_path_factory.getbasetemp() / "flipped.img"
    if not image.exists():
        write(image.parent).rename(image)
    with window(image, AT) as source:
        told = lvm.volumes(source, BUSY.size(ROOT))
    with image.open("r+b") as file:
        file.seek(AT + place)
        old = file.read(1)
        file.seek(AT + place)
        file.write(bytes([old[0] ^ mask]))
    try:
        assert read(image) == told
    except ImageError:
        pass
    finally:
        with image.open("r+b") as file:
            file.seek(AT + place)
            file.write(old)


def test_text_of_all_kinds_is_read():
    text = '# no\na = 1 b="x\\"y#" c {d=[1, "two", []]\n e=-2.5 } # end'

    assert lvm_text.parse(text) == {"a": 1, "b": 'x"y#', "c": {"d": [1, "two", []], "e": -2.5}}


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a {",
        "}",
        "a = ",
        "a = [1",
        "a = 1 a = 2",
        "= 1",
        'a = "',
        "a {" * 40,
        "a = " + "[" * 400,
    ],
)
def test_text_that_is_no_metadata_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        lvm_text.parse(text)


words = st.sampled_from(["{", "}", "=", "[", "]", '"', "a", "1", " ", "\n", "#", "\\", "-", "é"])


@given(st.lists(words, max_size=60).map("".join) | st.text(max_size=60))
def test_any_text_is_metadata_or_refused(text):
    with suppress(ValueError):
        assert isinstance(lvm_text.parse(text), dict)
