"""Cards that fail, lie, or are pulled while `piimage flash` writes them: none passes, none becomes half a card."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from emulated_card import emulated, flash, logged
from tiny_card import BOOT, MIB, ROOT, SIZE, make_build, make_tiny, tiny_patches

from piimage import artifact
from piimage.bases.cache import Cache
from piimage.disk.bmap import mapped_ranges
from piimage.disk.framed import CHUNK, read_layout, trailer
from piimage.disk.slots import apply_patches
from piimage.disk.sparse import copy_sparse
from piimage.errors import WriteFailedError
from piimage.flash.device import read_device
from piimage.flash.hold import hold
from piimage.flash.sources import open_sources
from piimage.flash.writer import write_card

CARD = 3 * SIZE


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster with a build of node3 as variant and stamp; `whole.img` is what its card must hold. And of node4."""
    home = tmp_path_factory.mktemp("abacus")
    builds = {"node3": "b1", "node4": "b2"}
    image = make_build(home, make_tiny(home / "tiny.img"), builds) / "variants/worker.img"
    copy_sparse(image, home / "whole.img")
    apply_patches(home / "whole.img", tiny_patches(image))
    return home


@pytest.fixture
def card(tmp_path):
    with emulated(tmp_path / "card", CARD) as found:
        yield found


@pytest.fixture
def write(cluster, card, tmp_path):
    """Runs `piimage flash` for node 3 onto the card."""

    def run(*arguments, **options):
        common = ("--cluster", cluster / "cluster.yaml", "--node", "3")
        return flash(card, *common, *arguments, **options)

    return run


def assert_is_node3(card, cluster):
    """Every mapped byte is what the materialised image has."""
    assert is_whole(card.content(), b"", cluster)


def is_plainly_empty(card):
    return not any(card.content()[:4096])


def test_a_good_card(card, cluster, write):
    code, events, said = write()

    assert (code, events[-1]["event"]) == (0, "done"), said
    assert events[-1]["rewritten"] == 0
    assert_is_node3(card, cluster)


@pytest.mark.parametrize("place", ["first", "middle", "last", "head"])
def test_the_card_refuses_a_write(card, cluster, write, place):
    at = {"first": BOOT, "middle": ROOT + 4096, "last": ROOT + MIB, "head": 8192}[place]
    card.faults(fail=[["write", at, at + 511, -1, 0]])

    code, events, said = write()

    assert code == 7, said
    assert events[-1]["event"] == "failed"
    assert "did not take byte" in events[-1]["message"]
    assert is_plainly_empty(card)
    card.faults()
    assert write("--resume")[0] == 0
    assert_is_node3(card, cluster)


def test_trouble_that_passes_is_told_and_harms_nothing(card, cluster, write):
    card.faults(fail=[["write", ROOT, ROOT + MIB, 2, 1], ["read", ROOT, ROOT + MIB, 1, 1]])

    code, events, said = write()

    assert code == 0, said
    assert "retry" in {event["event"] for event in events}
    assert_is_node3(card, cluster)


@pytest.mark.parametrize(
    "fault",
    [(ROOT + 4096, 1, "partition 2, ext4 rootfs"), (0, 2, "before the first partition")],
)
def test_the_card_cannot_be_read_back(card, write, fault):
    """The first block is written twice: when it is zeroed, and with the partition table, which goes again."""
    at, after, where = fault
    card.faults(fail=[["read", at, at + 511, -1, after]])

    code, events, said = write()

    assert code == 4, said
    assert where in events[-1]["message"]
    assert is_plainly_empty(card)


@pytest.mark.parametrize("writes", [1, 2])
def test_the_card_cannot_keep_what_it_took(card, cluster, write, writes):
    """A flush fails, in the body and after the partition table."""
    place = {1: ROOT + 1024, 2: 0}[writes]
    card.faults(fail=[["flush", place, place, -1, writes]])

    code, events, said = write()

    assert code == 7, said
    assert "did not take what was written" in events[-1]["message"]
    assert is_plainly_empty(card)
    card.faults()
    assert write("--resume")[0] == 0
    assert_is_node3(card, cluster)


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("place", ["body", "stamp", "head"])
def test_one_flipped_bit_is_mended(card, cluster, write, kind, place):
    at = spot(cluster, place)
    # Each of these places is written twice: by the probe or by the zeroing, and for good.
    card.faults(flip=[[kind, at, at, 1, 1 if kind == "write" else 2]])

    code, events, said = write()

    assert code == 0, said
    (again,) = (event for event in events if event["event"] == "rewrite")
    assert (again["first"], again["bytes"]) == (at // 4096 * 4096, 4096)
    assert_is_node3(card, cluster)


@pytest.mark.parametrize("place", ["body", "stamp", "head"])
def test_a_bit_that_always_flips_ends_it(card, cluster, write, place):
    at = spot(cluster, place)
    card.faults(flip=[["write", at, at, -1, 1]])

    code, events, said = write()

    assert code == 4, said
    assert f"byte {at // 4096 * 4096} to" in events[-1]["message"]
    assert "after writing them 3 times" in events[-1]["message"]
    assert no_table(card)


def spot(cluster, place):
    """A byte of the body, of what the stamp changes, or of the first block."""
    if place == "head":
        return 0x1BE
    whole, image = cluster / "whole.img", cluster / "dist/abacus/variants/worker.img"
    if place == "stamp":
        one, other = whole.read_bytes(), image.read_bytes()
        return next(at for at in range(ROOT, SIZE) if one[at] != other[at])
    return ROOT + 1024


def no_table(card):
    """No partition: where the fault lies in the first block itself, that block cannot be zero."""
    head = card.content()[:512]
    return head[510:] != b"\x55\xaa"


@pytest.mark.parametrize("kind", ["wraps", "swallows"])
@pytest.mark.parametrize("part", [1 / 16, 1 / 2, 0.99])
def test_a_fake_is_found(card, write, kind, part):
    card.faults(kind=kind, real=int(CARD * part) // 4096 * 4096)

    code, events, said = write()

    assert code == 4, said
    assert no_table(card)
    assert "fake" in events[-1]["hint"]
    if part < 0.9 or kind == "swallows":
        assert {event.get("phase") for event in events} == {None, "probe"}


def test_killed_at_any_moment_it_is_whole_or_empty_and_resumes(card, cluster, write, tmp_path):
    assert write()[0] == 0
    card.faults()
    assert write()[0] == 0
    whole = card.requests
    pid, seen = tmp_path / "pid", set()
    # A small card is read back in few requests: more moments at the end.
    moments = [*(1 + whole * n // 14 for n in range(13)), *range(whole - 13, whole, 2)]
    for number in moments:
        card.faults(kill=[str(pid), number, signal.SIGKILL])

        code, events, _ = write(pid=pid)

        assert code == -signal.SIGKILL, number
        ended = [event for event in events if event["event"] == "done"]
        assert not ended
        seen.add(next((e["phase"] for e in reversed(events) if e["event"] == "phase"), "head"))
        if not no_table(card):
            assert_is_node3(card, cluster)
        card.faults()
        go_on(card, cluster)
        assert_is_node3(card, cluster)
    assert len(moments) == 20
    assert seen >= {"probe", "write", "verify"}


def test_a_power_cut_at_any_moment_leaves_it_whole_or_empty(card, cluster, write, tmp_path):
    """After a flush, all before it is on the card; of what was written since, a cut keeps any part, in any order."""
    log, chance = tmp_path / "log", random.Random(5)
    before, kept, seen = card.content(), [], []
    safe = bytearray(before)
    card.faults(log=str(log))

    assert write()[0] == 0

    for offset, data in logged(log):
        if data:
            kept.append((offset, data))
            continue
        for share in (0, 0.3, 0.7, 1):
            found = bytearray(safe)
            for place, bytes_ in chance.sample(kept, round(share * len(kept))):
                # A card writes its own blocks, not requests.
                torn = chance.randrange(0, len(bytes_) + 1, 512) if share < 1 else len(bytes_)
                found[place : place + torn] = bytes_[:torn]
            seen.append(is_whole(found, before, cluster))
        for place, bytes_ in kept:
            safe[place : place + len(bytes_)] = bytes_
        kept = []
    assert not kept, "the last thing that is done is a flush"
    assert bytes(safe) == card.content()
    assert len(seen) > 20
    assert seen == sorted(seen)
    assert seen[-1]


def is_whole(found, before, cluster):
    """Whether it is node 3's card; if it is not, it is plainly empty, or what it was before."""
    if found[510:512] != b"\x55\xaa":
        return False
    if found[:512] == before[:512]:
        assert found == before
        return False
    whole = cluster / "whole.img"
    wanted = whole.read_bytes()
    for start, length in mapped_ranges(whole):
        assert found[start : start + length] == wanted[start : start + length], f"at byte {start}"
    return True


def test_an_update_that_is_killed_leaves_no_partition_table_and_is_gone_on_with(
    card, cluster, write, tmp_path
):
    assert write()[0] == 0
    pid = tmp_path / "pid"
    for place in (0, 8192, ROOT + 5000, CARD - MIB):
        change(card, ROOT + 5000)
        card.faults(killed_at=[str(pid), place, signal.SIGKILL])

        code, _, _ = write("--update", pid=pid)

        assert code == -signal.SIGKILL
        assert no_table(card)
        card.faults()
        go_on(card, cluster)
        assert_is_node3(card, cluster)


def change(card, at):
    with card.backing.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(64))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_the_user_it_says_so_and_goes_on(card, cluster, write, tmp_path, number):
    pid = tmp_path / "pid"
    card.faults(killed_at=[str(pid), ROOT + 1024, number])

    code, events, said = write(pid=pid)

    assert code == 130, said
    assert "--resume" in said
    assert "done" not in {event["event"] for event in events}
    assert is_plainly_empty(card)
    card.faults()
    go_on(card, cluster)
    assert_is_node3(card, cluster)


def go_on(card, cluster):
    """`--resume`, without the time that a process takes to start."""
    with (
        open_sources(Cache(cluster / "cache")) as sources,
        hold(read_device(card.device)) as held,
    ):
        source = sources.of_node(cluster / "dist" / "abacus", "node3")
        write_card(held.fd, CARD, source.payload, title="node3", mode="resume", proof=source.proof)


@pytest.mark.parametrize(
    ("phase", "fault"),
    [
        ("write", ["write", ROOT + 1024, ROOT + 1024, 1, 1]),
        ("flush", ["flush", ROOT + 1024, ROOT + 1024, 1, 2]),
        ("verify", ["read", ROOT + 1024, ROOT + 1024, 1, 2]),
        ("finish", ["write", 8192, 8192, 1, 1]),
    ],
)
def test_a_card_that_is_pulled(card, write, phase, fault):
    """What plays the card ends: every request fails at once, for good."""
    card.faults(die=[fault])

    code, events, said = write()

    assert code in {4, 7}, said
    assert events[-1]["event"] == "failed"
    seen = [event["phase"] for event in events if event["event"] == "phase"]
    assert seen[-1] == {"flush": "write"}.get(phase, phase)
    assert is_plainly_empty(card)


@pytest.fixture(scope="module")
def framed(tmp_path_factory):
    """An image in frames as a build publishes it, and the raw one."""
    home = tmp_path_factory.mktemp("framed")
    raw = make_tiny(home / "raw.img", root_size=CARD - ROOT, data=8 * MIB)
    return artifact.publish(raw, home, "node3", fmt="img.zst").image, raw


def broken(framed, tmp_path, change):
    """A copy of the image in frames after `change(its bytes, its layout)`."""
    path = tmp_path / "broken.img.zst"
    path.write_bytes(change(bytearray(framed.read_bytes()), read_layout(framed)))
    return path


def test_an_image_in_frames_becomes_a_card(card, framed):
    packed, raw = framed

    code, events, said = flash(card, "--image", packed)

    assert (code, events[-1]["event"]) == (0, "done"), said
    found, wanted = card.content(), raw.read_bytes()
    for start, length in mapped_ranges(raw):
        assert found[start : start + length] == wanted[start : start + length], f"at byte {start}"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_flipped_bit_in_a_frame_never_reaches_a_card(card, framed, tmp_path, number):
    def flip(content, layout):
        start, length = layout.frames[number]
        content[start + length // 2] ^= 1
        return content

    before = card.content()
    code, events, said = flash(card, "--image", broken(framed[0], tmp_path, flip))

    assert code == 4, said
    first = number * CHUNK
    assert f"byte {first} to {first + CHUNK} of the image in it are not what was packed" in said
    after = card.content()
    if number:
        assert events[-1]["event"] == "failed"
        assert not any(after[:4096])
        wanted = framed[1].read_bytes()[first : first + CHUNK]
        assert not any(
            after[first + at : first + at + 4096] == wanted[at : at + 4096]
            for at in range(0, CHUNK, 4096)
            if any(wanted[at : at + 4096])
        )
    else:  # the file systems are read before anything is written
        assert after == before


def test_an_image_in_frames_that_is_cut_short_becomes_no_card(card, framed, tmp_path):
    """Without its index it is an ordinary stream: where it is cut shows while it is written."""
    for keep in (0.3, 0.9, 0.999):
        path = broken(framed[0], tmp_path, lambda c, _: c[: int(len(c) * keep)])  # noqa: B023 -- used at once

        code, events, said = flash(card, "--image", path)

        assert code == 1, said
        assert "truncated or damaged" in said
        assert events[-1]["event"] == "failed"
        assert not any(card.content()[:4096])


@pytest.mark.parametrize("kept", [1, 0.6])
def test_an_image_that_is_packed_as_one_stream(card, framed, tmp_path, kept):
    """Whole, it becomes a card; cut short, which shows when a part of it is written, it becomes none."""
    raw = framed[1]
    packed = gzip.compress(raw.read_bytes(), 1)
    path = tmp_path / "raw.img.gz"
    path.write_bytes(packed[: int(len(packed) * kept)])

    code, events, said = flash(card, "--image", path)

    found, wanted = card.content(), raw.read_bytes()
    if kept == 1:
        assert (code, events[-1]["event"]) == (0, "done"), said
        for start, length in mapped_ranges(raw):
            assert found[start : start + length] == wanted[start : start + length], (
                f"at byte {start}"
            )
    else:
        assert (code, events[-1]["event"]) == (1, "failed"), said
        assert "is truncated" in said
        assert not any(found[:4096])


def test_a_wrong_index_is_refused(card, framed, cluster, tmp_path):
    """One with a wrong bit, and one of another image."""
    before = card.content()

    def spoiled(content, layout):
        content[sum(layout.frames[-1]) + 100] ^= 1
        return content

    def foreign(content, layout):
        frames = content[: sum(layout.frames[-1])]
        lengths = [length for _, length in layout.frames]
        return frames + trailer(layout.size, lengths, layout.digests, layout.data[:1], ())

    for change, words in ((spoiled, "its index is not what was written"), (foreign, "leaves out")):
        code, _, said = flash(card, "--image", broken(framed[0], tmp_path, change))

        assert code == 1, said
        assert words in said
        assert card.content() == before


def test_a_card_that_hangs_for_a_while_is_waited_for(card, cluster, write):
    def hang():
        until = time.monotonic() + 30
        while card.requests < 60 and time.monotonic() < until:
            time.sleep(0.01)
        card.server.send_signal(signal.SIGSTOP)
        time.sleep(3)
        card.server.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=hang)
    thread.start()
    code, _, said = write()
    thread.join()

    assert code == 0, said
    assert_is_node3(card, cluster)


def test_a_card_that_hangs_for_ever_is_given_up_and_the_next_one_written(card, cluster, tmp_path):
    cache = Cache(cluster / "cache")
    with (
        open_sources(cache) as sources,
        emulated(tmp_path / "other", CARD) as good,
        hold(read_device(card.device)) as held,
        hold(read_device(good.device)) as also,
    ):
        source = sources.of_node(cluster / "dist" / "abacus", "node3")
        told = []
        card.server.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(WriteFailedError, match="has not answered for"):
                write_card(
                    held.fd, CARD, source.payload,
                    title="node3", limits=(0.5, 2), notify=told.append,
                )  # fmt: skip
            write_card(also.fd, CARD, source.payload, title="node3", proof=source.proof)
        finally:
            card.server.send_signal(signal.SIGCONT)
        assert "slow" in {event.kind for event in told}
        assert_is_node3(good, cluster)


def test_a_good_card_beside_a_bad_one(card, cluster, tmp_path):
    with emulated(tmp_path / "other", CARD) as bad:
        bad.faults(fail=[["write", ROOT, ROOT + MIB, -1, 0]])
        done = subprocess.run(
            [
                os.fspath(argument)
                for argument in (
                    sys.executable, "-m", "piimage", "flash", "--cluster", cluster / "cluster.yaml",
                    "--node", f"3={card.device}", "--node", f"node4={bad.device}",
                    "--allow", "not-removable",
                )
            ],
            input="y\n", capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert done.returncode == 8, done.stderr
        assert f"1 of 2 cards failed: {bad.device}" in done.stderr
        assert is_plainly_empty(bad)
    assert_is_node3(card, cluster)
