"""Cards full of other bytes, as regular files: what is on them after a write, a break, a resume, an update."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from tiny_card import BOOT, MIB, ROOT, SIZE, SLOT, ZEROS, dirty_card, tiny_patches

from piimage.disk import ext4, fat
from piimage.disk.bmap import mapped_ranges
from piimage.disk.slots import Patch, apply_patches
from piimage.disk.sparse import copy_sparse
from piimage.errors import ImageError, VerifyError, WriteFailedError
from piimage.flash import medium
from piimage.flash.journal import read_journal
from piimage.flash.payload import open_payload
from piimage.flash.ranges import BLOCK, amount
from piimage.flash.writer import write_card

EXTRA = 5 * MIB + 512
LATE = ROOT + MIB


@pytest.fixture(scope="session")
def stamped(tiny):
    return open_payload(tiny, tiny_patches(tiny))


@pytest.fixture
def whole(stamped, tmp_path):
    """The image that the payload stands for, made the long way."""
    path = tmp_path / "whole.img"
    copy_sparse(stamped.image, path)
    path.chmod(0o600)
    apply_patches(path, stamped.patches)
    return path


@pytest.fixture
def card(tmp_path):
    return dirty_card(tmp_path / "card", SIZE + EXTRA)


@pytest.fixture(autouse=True)
def _small_requests(monkeypatch):
    """Many requests, though the image is small."""
    monkeypatch.setattr("piimage.flash.compare.CHUNK", 256 << 10)
    monkeypatch.setattr("piimage.flash.writer.CHUNK", 256 << 10)
    monkeypatch.setattr("piimage.flash.writer._STRETCH", 64 << 10)


@contextmanager
def opened(path):
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


def flash(card, payload, **options):
    with opened(card) as fd:
        return write_card(fd, card.stat().st_size, payload, title="node3", delays=(), **options)


def assert_holds(card, whole, ranges=None):
    with card.open("rb") as one, whole.open("rb") as other:
        for start, length in ranges or mapped_ranges(whole):
            one.seek(start)
            other.seek(start)
            assert one.read(length) == other.read(length), f"at byte {start}"


def is_plainly_empty(card):
    with card.open("rb") as file:
        return not any(file.read(BLOCK))


def failing(monkeypatch, call, when):
    """Let `os.pwritev` or `os.preadv` fail for requests of the card that `when(count, offset)` picks."""
    true, count = getattr(os, call), [0]

    def wrapped(fd, buffers, offset):
        if Path(f"/proc/self/fd/{fd}").readlink().name == "card":
            count[0] += 1
            answer = when(count[0], offset)
            if answer is not None:
                return answer(lambda: true(fd, buffers, offset), buffers)
        return true(fd, buffers, offset)

    monkeypatch.setattr(medium.os, call, wrapped)


def raising(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


def test_every_mapped_byte_of_the_materialised_image_is_on_a_dirty_card(stamped, whole, card):
    outcome = flash(card, stamped)

    assert_holds(card, whole)
    ext4.check(card, ROOT)
    fat.check(card, BOOT)
    assert ext4.read_files(card, ROOT, [SLOT])[SLOT].startswith(b"#cloud-config")
    assert fat.read_files(card, BOOT, ["piimage.json"])["piimage.json"] == b"{}\n" * 9000
    assert amount(stamped.needed) == outcome.written == outcome.checked
    assert outcome.rewritten == 0
    assert not any(card.read_bytes()[-MIB:])


def test_what_is_not_allocated_is_left_alone(stamped, card):
    flash(card, stamped, probed=False)

    data = card.read_bytes()
    free = ROOT - 16 * BLOCK  # the end of the FAT partition, which holds one small file
    assert data[free : free + BLOCK] == b"old!" * (BLOCK // 4)


def test_full_writes_everything(tiny, card):
    payload = open_payload(tiny, full=True)

    flash(card, payload)

    assert card.read_bytes()[: payload.size] == tiny.read_bytes()


def test_allocated_zeros_are_written_though_they_are_holes(tiny, card):
    flash(card, open_payload(tiny))

    assert ext4.read_files(card, ROOT, [ZEROS]) == {ZEROS: bytes(300_000)}
    assert tiny.stat().st_blocks * 512 < amount(open_payload(tiny).needed)


def test_a_card_of_exactly_the_image_size(stamped, whole, card):
    os.truncate(card, stamped.size)

    flash(card, stamped)

    assert_holds(card, whole)


def test_an_image_with_a_broken_last_block(tiny, tmp_path):
    image = tmp_path / "odd.img"
    copy_sparse(tiny, image)
    image.chmod(0o600)
    with image.open("ab") as file:
        file.write(b"x" * 512)
    payload = open_payload(image, full=True)
    for size in (payload.size, payload.size + 1, payload.size + 512, payload.size + MIB):
        card = tmp_path / "card"
        card.write_bytes(b"\xff" * size)

        flash(card, payload)

        assert card.read_bytes()[: payload.size] == image.read_bytes()


def test_a_card_one_sector_short_is_left_alone(stamped, card):
    os.truncate(card, stamped.size - 512)
    before = card.read_bytes()

    with pytest.raises(WriteFailedError, match="the card has") as caught:
        flash(card, stamped)

    assert caught.value.hint == "take a larger card"
    assert card.read_bytes() == before


@pytest.mark.parametrize("moment", [0, 1, 2, 4, 6, 9, 11, 13, 14, 15])
def test_a_write_that_breaks_off_leaves_no_partition_table_and_resumes(
    stamped, whole, card, monkeypatch, moment
):
    with monkeypatch.context() as patch:
        failing(patch, "pwritev", lambda n, _: raising(5) if n > moment else None)
        with pytest.raises(WriteFailedError, match="did not take byte") as caught:
            flash(card, stamped, probed=False)

    assert caught.value.hint
    if moment:
        assert is_plainly_empty(card)
    flash(card, stamped, mode="resume")
    assert_holds(card, whole)
    with opened(card) as fd:
        assert read_journal(fd) is None


def test_a_resumed_write_goes_on_where_it_was_safe(stamped, whole, card, monkeypatch):
    body = amount(stamped.needed)
    with monkeypatch.context() as patch:
        failing(patch, "pwritev", lambda _, at: raising(5) if LATE <= at < SIZE else None)
        with pytest.raises(WriteFailedError, match="partition 2, ext4 rootfs"):
            flash(card, stamped, probed=False)
    with opened(card) as fd:
        found = read_journal(fd)
    assert found.title == "node3"
    assert found.phase == "write"
    assert found.done >= ROOT

    outcome = flash(card, stamped, mode="resume")

    assert outcome.written < body
    assert outcome.checked == body
    assert_holds(card, whole)


def test_a_journal_of_another_payload_is_not_gone_on_with(stamped, tiny, card, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, "pwritev", lambda _, at: raising(5) if LATE <= at < SIZE else None)
        with pytest.raises(WriteFailedError):
            flash(card, stamped, probed=False)

    flash(card, open_payload(tiny), mode="resume")

    assert_holds(card, tiny)


def test_another_build_of_like_content_is_another_payload(tiny):
    one, other = open_payload(tiny, identity="b1"), open_payload(tiny, identity="b2")

    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == open_payload(tiny, identity="b1").fingerprint


def test_a_card_that_passes_trouble_is_tried_again(stamped, whole, card, monkeypatch):
    failing(monkeypatch, "pwritev", lambda n, _: raising(5) if n in {7, 12} else None)
    events = []

    with opened(card) as fd:
        write_card(
            fd, card.stat().st_size, stamped, title="x", delays=(0.0, 0.0), notify=events.append
        )

    assert_holds(card, whole)
    assert [event.kind for event in events].count("retry") == 2


def test_a_card_that_is_pulled(stamped, card, monkeypatch):
    failing(monkeypatch, "pwritev", lambda n, _: raising(19) if n > 40 else None)

    with pytest.raises(WriteFailedError, match="the card is gone"):
        flash(card, stamped)


def flipping(at, times):
    """Reading the block at byte `at` gives a wrong bit, so many times."""
    left = [times]

    def answer(read, buffers):
        count = read()
        if left[0]:
            left[0] -= 1
            buffers[0][0] ^= 1
        return count

    return lambda _, offset: answer if offset == at else None


def test_a_card_that_does_not_take_its_table_back_is_not_said_to_be_blank(
    stamped, card, monkeypatch
):
    """It was pulled after the table was written, and before that was proven."""
    tables = []

    def when(_, offset):
        if offset == 0 and card.read_bytes()[510:512] == b"\x55\xaa":
            tables.append(offset)
            return raising(errno.ENODEV)
        return None

    flash(card, stamped)
    card.write_bytes(bytes(card.stat().st_size))
    failing(monkeypatch, "pwritev", when)
    failing(monkeypatch, "preadv", when)

    with pytest.raises(WriteFailedError) as caught:
        flash(card, stamped)

    assert len(tables) >= 2
    assert "the card is gone" in caught.value.message
    assert "may have its partition table already, and does not take it back" in caught.value.message
    assert "left without" not in caught.value.message
    assert "--update" in caught.value.hint


def body_piece(payload):
    """A place at which a request begins: a multiple of a chunk, inside the root file system."""
    starts = [start for start, length in payload.needed if start >= ROOT]
    return starts[0]


def test_one_wrong_bit_is_mended_and_told(stamped, whole, card, monkeypatch):
    failing(monkeypatch, "preadv", flipping(body_piece(stamped), 1))
    events = []

    with opened(card) as fd:
        outcome = write_card(
            fd, card.stat().st_size, stamped, title="x", probed=False, notify=events.append
        )

    assert outcome.rewritten == BLOCK
    assert [event.data["bytes"] for event in events if event.kind == "rewrite"] == [BLOCK]
    assert_holds(card, whole)


@pytest.mark.parametrize("place", ["body", "head"])
def test_a_bit_that_stays_wrong_is_named_with_its_place(stamped, card, monkeypatch, place):
    at = body_piece(stamped) if place == "body" else 0
    failing(monkeypatch, "preadv", flipping(at, 99))

    with pytest.raises(VerifyError) as caught:
        flash(card, stamped, probed=False)

    words = f"byte {at} to {at + BLOCK}"
    assert words in caught.value.message
    assert "after writing them 3 times" in caught.value.message
    where = "partition 2, ext4 rootfs" if place == "body" else "before the first partition"
    assert where in caught.value.message
    assert "worn out" in caught.value.hint
    assert is_plainly_empty(card)


def test_a_card_that_cannot_be_read_back(stamped, card, monkeypatch):
    failing(monkeypatch, "preadv", lambda _, at: raising(5) if at >= ROOT else None)

    with pytest.raises(VerifyError, match=r"could not be read at byte .*\(partition 2, ext4"):
        flash(card, stamped, probed=False)
    assert is_plainly_empty(card)


def test_an_update_writes_what_differs(stamped, whole, card):
    flash(card, stamped)
    at = body_piece(stamped)
    with card.open("r+b") as file:
        file.seek(at)
        file.write(b"changed")

    outcome = flash(card, stamped, mode="update")

    assert outcome.written <= stamped.head + (64 << 10)
    assert_holds(card, whole)


def test_an_update_of_a_card_that_is_right_writes_nothing(stamped, card, monkeypatch):
    flash(card, stamped)
    failing(monkeypatch, "pwritev", lambda *_: raising(5))

    assert flash(card, stamped, mode="update").unchanged


def test_an_update_of_a_card_with_other_content_is_a_fresh_write(stamped, whole, card):
    outcome = flash(card, stamped, mode="update")

    assert outcome.written == amount(stamped.needed)
    assert_holds(card, whole)


def test_a_write_can_be_stopped_from_outside(stamped, card):
    stop, phases = Event(), []

    def notify(event):
        phases.append(event.kind)
        if event.kind == "progress":
            stop.set()

    with opened(card) as fd, pytest.raises(KeyboardInterrupt):
        write_card(fd, card.stat().st_size, stamped, title="x", stop=stop, notify=notify)

    assert is_plainly_empty(card)


@pytest.mark.parametrize("mode", ["fresh", "update", "resume"])
def test_what_may_not_begin_leaves_the_card_as_it_is(stamped, card, mode):
    flash(card, stamped)
    with card.open("r+b") as file:
        file.seek(ROOT + 4096)
        file.write(b"changed")
    before = card.read_bytes()

    def no():
        raise WriteFailedError("nobody can note it")

    with pytest.raises(WriteFailedError, match="nobody can note it"):
        flash(card, stamped, mode=mode, begin=no)

    assert card.read_bytes() == before


def test_a_comparison_that_is_stopped_has_not_begun_to_write(stamped, card):
    flash(card, stamped)
    before, stop, begun = card.read_bytes(), Event(), []

    with pytest.raises(KeyboardInterrupt):
        flash(
            card, stamped, mode="update", stop=stop,
            notify=lambda _: stop.set(), begin=lambda: begun.append(1),
        )  # fmt: skip

    assert not begun
    assert card.read_bytes() == before


def test_a_card_that_is_right_is_not_begun(stamped, card):
    flash(card, stamped)
    begun = []

    flash(card, stamped, mode="update", begin=lambda: begun.append(1))

    assert not begun


def test_a_silent_card_is_given_up(stamped, card, monkeypatch):
    silence = Event()

    def hang(write, _):
        silence.wait(5)
        return write()

    failing(monkeypatch, "pwritev", lambda n, _: hang if n > 8 else None)
    events = []
    with opened(card) as fd:
        with pytest.raises(WriteFailedError, match="has not answered") as caught:
            write_card(
                fd, card.stat().st_size, stamped,
                title="x", notify=events.append, limits=(0.05, 1.0),
            )  # fmt: skip
        silence.set()

    assert "slow" in {event.kind for event in events}
    assert "--resume" in caught.value.hint


def test_a_patch_outside_the_image_is_refused(tiny):
    with pytest.raises(ImageError, match="outside"):
        open_payload(tiny, [Patch(tiny.stat().st_size - 1, b"xx")])
