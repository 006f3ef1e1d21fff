"""Cards that say that they are larger than they are, played by a file."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.errors import VerifyError
from piimage.flash import medium as module
from piimage.flash.capacity import late_marks, marks, probe, scatter, strays
from piimage.flash.medium import Medium
from piimage.flash.ranges import common

MIB = 1 << 20
SIZE = 40 * MIB


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes a card of `SIZE` bytes of which `real` are there; the rest wraps around, or is swallowed."""
    write, read = os.pwritev, os.preadv
    opened = []

    def make(real, kind):
        path = tmp_path / "card"
        path.write_bytes(b"")
        os.truncate(path, SIZE)
        fd = os.open(path, os.O_RDWR)
        opened.append(fd)

        def place(offset):
            return offset % real if kind == "wraps" else offset

        def pwritev(to, buffers, offset):
            if to == fd and kind == "swallows" and offset >= real:
                return len(buffers[0])
            return write(to, buffers, place(offset) if to == fd else offset)

        monkeypatch.setattr(module.os, "pwritev", pwritev)
        monkeypatch.setattr(
            module.os, "preadv", lambda to, b, at: read(to, b, place(at) if to == fd else at)
        )
        return Medium(fd, SIZE, place=lambda _: "there")

    yield make
    for fd in opened:
        os.close(fd)


def test_an_honest_card_passes_and_keeps_what_it_must(fake):
    card = fake(SIZE, "honest")
    keep = [(0, 2 * MIB), (20 * MIB, 4 * MIB)]
    view = memoryview(module.buffer(SIZE))[:SIZE]
    view[:] = b"k" * SIZE
    card.write(0, view)

    probe(card, keep=keep, fill=[(4 * MIB, 12 * MIB)])

    card.read_into(0, view)
    assert all(view[start : start + length] == b"k" * length for start, length in keep)


@pytest.mark.parametrize("kind", ["wraps", "swallows"])
@pytest.mark.parametrize("parts", [16, 8, 2])
def test_a_fake_is_found_and_its_room_told(fake, kind, parts):
    real = SIZE // parts

    with pytest.raises(VerifyError, match=r"says that it has 40\.0 MiB, and has about") as caught:
        probe(fake(real, kind), keep=[], fill=[(MIB, 10 * MIB)])

    told = float(caught.value.message.split("about ")[1].split(" MiB")[0]) * MIB
    assert real / 3 <= told <= real * 1.05
    assert "fake" in caught.value.hint


def test_a_card_that_swallows_its_last_hundredth(fake):
    with pytest.raises(VerifyError, match="what is written beyond is lost"):
        probe(fake(SIZE * 99 // 100 // 4096 * 4096, "swallows"), keep=[], fill=[])


def test_a_card_that_wraps_a_little_before_its_end_gives_its_marks_away(fake):
    card = fake(SIZE * 99 // 100 // 4096 * 4096, "wraps")
    card.zero(0, MIB)
    strays(card, [(0, MIB)])

    scatter(card, keep=[(4 * MIB, MIB)])

    with pytest.raises(VerifyError, match="comes back at its beginning"):
        strays(card, [(0, MIB)])


def test_late_marks_leave_an_honest_cards_head_blank(fake):
    card = fake(SIZE, "honest")
    card.zero(0, MIB)
    probe(card, keep=[], fill=[(4 * MIB, 12 * MIB)])
    scatter(card, keep=[])
    strays(card, [(0, MIB)])


@given(
    size=st.integers(1, 1 << 40).map(lambda n: n * 512),
    start=st.integers(0, 1 << 38),
    length=st.integers(1, 1 << 38),
)
def test_marks_lie_on_the_card_and_outside_what_is_kept(size, start, length):
    keep = [(start, length)]
    found, late = marks(size, keep), late_marks(size, keep)

    assert found == sorted(set(found))
    assert late == sorted(set(late))
    for mark in (*found, *late):
        assert mark % 4096 == 0
        assert 0 <= mark <= size - 4096
        assert not common([(mark, 4096)], keep)
