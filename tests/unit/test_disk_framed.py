"""Images in frames: what other tools read of them, what is unpacked, and that no damage passes."""

from __future__ import annotations

import ctypes
import json
import os
import random
import struct
import subprocess
from contextlib import ExitStack

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.disk.framed import BLOCK, CHUNK, read_layout, trailer
from piimage.disk.framing import pack
from piimage.disk.unframed import open_framed
from piimage.disk.window import joined, opened
from piimage.errors import ImageError, VerifyError
from piimage.progress import Quiet

SIZE = 3 * CHUNK + 5 * BLOCK + 512
#: In use: a frame of data, a part of one, zeros within and for themselves, and the odd end.
MAPPED = [(0, CHUNK), (CHUNK + 100, 9 * BLOCK), (2 * CHUNK, CHUNK), (SIZE - 700, 700)]
ZEROS = [(3 * BLOCK, 2 * BLOCK), (2 * CHUNK, CHUNK)]


def packed(raw, target, mapped=MAPPED):
    with Quiet().step("packing") as task:
        pack(raw, target, mapped, task)
    return target


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    content = bytearray(random.Random(1).randbytes(SIZE))
    for start, length in ZEROS:
        content[start : start + length] = bytes(length)
    path = tmp_path_factory.mktemp("framed") / "raw.img"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="session")
def framed(raw):
    return packed(raw, raw.with_name("image.img.zst"))


def copy(framed, tmp_path, change):
    """A copy with other bytes."""
    content = bytearray(framed.read_bytes())
    change(content)
    path = tmp_path / "copy.img.zst"
    path.write_bytes(content)
    return path


def test_zstd_unpacks_the_image(raw, framed):
    done = subprocess.run(["zstd", "-dc", framed], capture_output=True, check=True)

    assert done.stdout == raw.read_bytes()


def test_the_seek_table_is_the_one_that_zstd_describes(raw, framed):
    """As contrib/seekable_format/zstd_seekable_compression_format.md in zstd's repository has it."""
    content = framed.read_bytes()
    count, descriptor, magic = struct.unpack("<IBI", content[-9:])
    assert (count, descriptor, magic) == (4, 0, 0x8F92EAB1)
    table = content[-9 - 8 * count - 8 :]
    assert struct.unpack("<II", table[:8]) == (0x184D2A5E, 8 * count + 9)
    at, image = 0, b""
    for packed_size, size in struct.iter_unpack("<II", table[8:-9]):
        frame = content[at : at + packed_size]
        assert zstandard.frame_content_size(frame) == size
        image += zstandard.decompress(frame)
        at += packed_size
    assert image == raw.read_bytes()
    assert struct.unpack("<I", content[at : at + 4]) == (0x184D2A50,)


def test_the_index_tells_data_from_zeros_and_what_each_frame_holds(raw, framed):
    layout, content = read_layout(framed), raw.read_bytes()

    wide = [
        (s // BLOCK * BLOCK, -(-(s + n) // BLOCK) * BLOCK - s // BLOCK * BLOCK) for s, n in MAPPED
    ]
    assert layout.mapped == joined([(s, min(n, SIZE - s)) for s, n in wide])
    assert list(layout.zero) == ZEROS
    assert layout.digests == tuple(
        blake3(content[at : at + CHUNK]).digest() for at in range(0, SIZE, CHUNK)
    )


def test_as_many_cores_as_there_may_be_make_the_same_file(raw, framed, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    one = packed(raw, tmp_path / "one").read_bytes()
    monkeypatch.setattr(os, "cpu_count", lambda: 7)

    assert one == packed(raw, tmp_path / "seven").read_bytes() == framed.read_bytes()


@settings(max_examples=20)  # each unpacks frames of four megabytes
@given(st.lists(st.tuples(st.integers(0, SIZE), st.integers(1, 2 * CHUNK)), min_size=1, max_size=4))
def test_any_place_reads_as_it_does_in_the_raw_image(raw, framed, reads):
    content = raw.read_bytes()
    with opened(open_framed(framed)) as image:
        for offset, length in reads:
            got = image.pread(length, offset)
            assert got == content[offset : offset + len(got)]
            buffer = bytearray(length)
            count = image.read_into(memoryview(buffer), offset)
            assert buffer[:count] == content[offset : offset + count]
            assert len(got) == count
            assert count or offset == SIZE


def test_a_frame_is_proven_without_being_unpacked(raw, framed, tmp_path):
    """Its bytes are damaged here, so that unpacking it would be noticed."""
    damaged = copy(framed, tmp_path, lambda content: flip(content, 1000))
    content = raw.read_bytes()[:CHUNK]
    with opened(open_framed(damaged)) as image:
        assert image.proves(memoryview(content), 0)
        assert not image.proves(memoryview(content[:-1] + b"?"), 0)
        assert not image.proves(memoryview(content[:BLOCK]), 0)
        assert not image.proves(memoryview(content), BLOCK)
        assert not image.proves(memoryview(content), 1 << 40)


def test_what_is_unpacked_is_lent_where_it_lies(raw, framed):
    content = raw.read_bytes()
    with opened(open_framed(framed)) as image:
        for offset, length in ((0, CHUNK), (CHUNK + 5 * BLOCK, 7 * BLOCK), (SIZE - 512, 512)):
            with image.lent(length, offset) as lent:
                assert lent == content[offset : offset + length]
                # Written past the page cache, it lies at a whole block as it does in the image.
                assert ctypes.addressof(ctypes.c_char.from_buffer(lent)) % BLOCK == offset % BLOCK


@pytest.mark.parametrize(
    ("offset", "length"),
    [(2 * CHUNK, CHUNK), (CHUNK - BLOCK, 2 * BLOCK), (SIZE - 512, BLOCK), (SIZE, BLOCK)],
    ids=["zeros", "two frames", "over the end", "behind the end"],
)
def test_what_lies_nowhere_as_one_is_not_lent(framed, offset, length):
    with opened(open_framed(framed)) as image, image.lent(length, offset) as lent:
        assert lent is None


def test_who_keeps_what_was_lent_does_not_get_the_buffers_of_others(framed):
    """A card that hangs keeps them; another one that is written alone after it still gets its chunks."""
    image = open_framed(framed)
    with opened(image) as content, ExitStack() as hanging:
        lent = [hanging.enter_context(content.lent(BLOCK, n * BLOCK)) for n in range(9)]
        assert [one is not None for one in lent] == [True] * 3 + [False] * 6
        assert content.pread(10, CHUNK)
        hanging.close()
        with content.lent(BLOCK, 0) as again:
            assert again is not None


def test_nothing_is_lent_while_several_cards_are_written(framed):
    image = open_framed(framed)
    with opened(image) as content:
        with opened(image) as same, content.lent(BLOCK, 0) as one, same.lent(BLOCK, 0) as other:
            assert (one, other) == (None, None)
        with content.lent(BLOCK, 0) as alone:
            assert alone is not None


def flip(content, at):
    content[at] ^= 1


def test_zeros_in_use_are_not_unpacked_and_others_are(raw, framed, tmp_path):
    layout = read_layout(framed)
    start, _ = layout.frames[2]  # of zeros alone
    damaged = copy(framed, tmp_path, lambda content: flip(content, start + 12))
    with opened(open_framed(damaged)) as image:
        buffer = bytearray(b"?" * CHUNK)
        assert image.read_into(memoryview(buffer), 2 * CHUNK) == CHUNK
        assert buffer == bytes(CHUNK)
    unknown = packed(raw, tmp_path / "unknown", MAPPED[:2])
    damaged = copy(unknown, tmp_path, lambda content: flip(content, start + 12))
    with opened(open_framed(damaged)) as image, pytest.raises(VerifyError):
        image.read_into(memoryview(buffer), 2 * CHUNK)


@pytest.mark.parametrize("place", [0, 4, 1000, -1])
def test_one_wrong_bit_in_a_frame_is_named(framed, tmp_path, place):
    start, length = read_layout(framed).frames[1]
    at = start + (place if place >= 0 else length - 1)
    damaged = copy(framed, tmp_path, lambda content: flip(content, at))
    with opened(open_framed(damaged)) as image:
        image.pread(10, 0)

        with pytest.raises(
            VerifyError, match=f"byte {CHUNK} to {2 * CHUNK} of the image in it"
        ) as e:
            image.pread(10, CHUNK)
    assert "fetch it again" in e.value.hint


@given(st.data())
def test_one_wrong_bit_in_index_or_table_is_an_error_or_no_image_in_frames(
    framed, tmp_path_factory, data
):
    content = bytearray(framed.read_bytes())
    begin = sum(read_layout(framed).frames[-1])
    at = data.draw(st.integers(begin, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "damaged.img.zst"
    path.write_bytes(content)
    try:
        found = read_layout(path)
    except ImageError as error:
        assert "is damaged" in error.message or "does not know" in error.message  # noqa: PT017 -- or None
    else:
        assert found is None


def test_what_zstd_makes_is_not_in_frames(raw, tmp_path):
    plain, empty = tmp_path / "plain.zst", tmp_path / "empty"
    subprocess.run(["zstd", "-q", "-1", raw, "-o", plain], check=True)
    empty.touch()

    assert [read_layout(path) for path in (plain, empty, raw)] == [None, None, None]
    with pytest.raises(ImageError, match="cannot read"):
        read_layout(tmp_path / "absent")


def test_frames_and_a_seek_table_of_others_are_no_image_of_ours(tmp_path):
    frame = zstandard.compress(b"x" * 100)
    table = struct.pack("<II", len(frame), 100) + struct.pack("<IBI", 1, 0, 0x8F92EAB1)
    path = tmp_path / "others.zst"
    path.write_bytes(frame + struct.pack("<II", 0x184D2A5E, len(table)) + table)

    assert read_layout(path) is None


def test_a_file_cut_short_is_not_in_frames(framed, tmp_path):
    content = framed.read_bytes()
    for cut in (1, 9, 100, len(content) // 2):
        path = tmp_path / "cut.img.zst"
        path.write_bytes(content[:-cut])
        assert read_layout(path) is None


def test_a_frame_of_more_than_it_says_is_damage(raw, framed, tmp_path):
    """What unpacks without end is not unpacked to its end."""
    layout, content = read_layout(framed), framed.read_bytes()
    frames = [content[start : start + length] for start, length in layout.frames]
    frames[1] = zstandard.compress(bytes(CHUNK + 1))
    end = trailer(SIZE, [len(f) for f in frames], layout.digests, layout.data, layout.zero)
    path = tmp_path / "bomb.img.zst"
    path.write_bytes(b"".join(frames) + end)
    with opened(open_framed(path)) as image, pytest.raises(VerifyError):
        image.pread(1, CHUNK)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "does not know"),
        ({"chunk": 1 << 20}, "does not know"),
        ({"size": SIZE + CHUNK}, "is damaged"),
        ({"size": -1}, "is damaged"),
        ({"blake3": ["00"]}, "is damaged"),
        ({"blake3": 7}, "is damaged"),
        ({"extents": [[0, 1]]}, "is damaged"),
        ({"extents": [[-5, 1, "data"]]}, "is damaged"),
        ({"extents": [[1 << 30, 1, "data"]]}, "is damaged"),
    ],
)
def test_an_index_that_was_made_wrong(framed, tmp_path, change, words):
    content = framed.read_bytes()
    begin = sum(read_layout(framed).frames[-1])
    (length,) = struct.unpack("<I", content[begin + 4 : begin + 8])
    document = json.loads(content[begin + 8 + 48 : begin + 8 + length])
    body = json.dumps({**document, **change}).encode()
    index = b"piimage-index 1\n" + blake3(body).digest() + body
    path = tmp_path / "wrong.img.zst"
    head = content[:begin] + struct.pack("<II", 0x184D2A50, len(index)) + index
    path.write_bytes(head + content[begin + 8 + length :])

    with pytest.raises(ImageError, match=words) as caught:
        read_layout(path)
    assert caught.value.hint
