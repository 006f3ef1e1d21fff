"""Ranges, the journal's block, and what the meter tells."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.disk.window import joined
from piimage.flash.events import Meter
from piimage.flash.journal import SIZE, Journal, decode, encode
from piimage.flash.ranges import amount, common, pieces, rounded, without

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=6).map(joined)


def members(found):
    return {at for start, length in found for at in range(start, start + length)}


@given(one=ranges, other=ranges)
def test_ranges_are_sets(one, other):
    assert members(common(one, other)) == members(one) & members(other)
    assert members(without(one, other)) == members(one) - members(other)
    assert amount(one) == len(members(one))


@given(found=ranges, unit=st.integers(1, 9), end=st.integers(0, 80))
def test_rounded_ranges_cover_whole_units_up_to_the_end(found, unit, end):
    wanted = {at for m in members(found) for at in range(m // unit * unit, (m // unit + 1) * unit)}
    assert members(rounded(found, unit, end)) == {at for at in wanted if at < end}


@given(found=ranges, size=st.integers(1, 9))
def test_pieces_end_at_multiples(found, size):
    cut = list(pieces(found, size))
    assert members(cut) == members(found)
    assert all(start // size == (start + length - 1) // size for start, length in cut)


@settings(max_examples=20)
@given(title=st.sampled_from(["node3", "", "\0", "\U0001f370" * 200]), done=st.integers(0, 1 << 45))
def test_a_journal_survives_its_block(title, done):
    journal = Journal(fingerprint="f" * 64, title=title, phase="write", done=done)
    block = encode(journal)
    assert len(block) == SIZE
    assert decode(block) == journal
    assert block[510:512] != b"\x55\xaa"


@pytest.mark.parametrize("spoil", [0, 20, 300, SIZE - 1])
def test_a_torn_journal_is_none(spoil):
    block = bytearray(encode(Journal(fingerprint="f", title="node3", phase="write")))
    block[spoil] ^= 1
    assert decode(bytes(block)) is None


@pytest.mark.parametrize(
    "change", [{"done": "1"}, {"done": -1}, {"done": True}, {"title": 3}, {"more": 1}]
)
def test_a_journal_of_strange_values_is_none(change):
    import hashlib  # noqa: PLC0415 -- this test alone forges a journal

    values = {"fingerprint": "f", "title": "t", "phase": "p", "done": 0, **change}
    body = (b"piimage-flash 1\n" + json.dumps(values).encode()).ljust(SIZE - 32, b"\0")
    assert decode(body + hashlib.sha256(body).digest()) is None


def test_an_empty_block_is_no_journal():
    assert decode(bytes(SIZE)) is None


def test_the_meter_tells_rate_and_time_left():
    told, now = [], [0.0]
    meter = Meter(told.append, clock=lambda: now[0])
    meter.expect(write=1000, verify=1000)
    meter.begin("write")
    for _ in range(5):
        now[0] += 1
        meter.add(100)

    last = told[-1].data
    assert told[0].data == {"phase": "write", "bytes": 1000}
    assert (last["done"], last["total"], last["rate"]) == (500, 2000, 100)
    assert last["eta"] == 5 + 5  # reading is taken for twice as fast until it is known


def test_the_meter_follows_a_card_that_slows_down():
    told, now = [], [0.0]
    meter = Meter(told.append, clock=lambda: now[0])
    meter.expect(write=10_000)
    meter.begin("write")
    for step in (1, 1, 1, 1, 1, *[10] * 12):
        now[0] += step
        meter.add(100)

    assert told[-1].data["rate"] < 20
