"""Memory for each node: what fits, and figures when it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.boot.memory import DEFAULT, LEAST, Share, available, per_node
from piimage.errors import PiimageError


@pytest.fixture
def machine(tmp_path):
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (cgroups / "a" / "b").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8388608 kB\n")
    (proc / "self" / "cgroup").write_text("1:x:/z\n0::/a/b\n")
    return proc, cgroups


def test_the_machines_memory_without_groups(machine, tmp_path):
    proc, _ = machine
    assert available(proc, tmp_path / "none") == 8192


def test_the_nearest_group_with_a_limit_counts(machine):
    proc, cgroups = machine
    for place, limit in ((cgroups / "a", 3 << 30), (cgroups / "a" / "b", "max")):
        (place / "memory.max").write_text(f"{limit}\n")
        (place / "memory.current").write_text(f"{1 << 30}\n")
        (place / "memory.stat").write_text(f"anon 5\nfile {512 << 20}\n")

    assert available(proc, cgroups) == 2048 + 512


def test_a_group_larger_than_the_machine_does_not_help(machine):
    proc, cgroups = machine
    (cgroups / "memory.max").write_text(f"{64 << 30}\n")
    (cgroups / "memory.current").write_text("0\n")
    (cgroups / "memory.stat").write_text("")

    assert available(proc, cgroups) == 8192


def test_a_large_machine_gives_the_default():
    assert per_node(3, 24_000, None, emulated=True) == Share(DEFAULT, 1024)


def test_what_is_over_goes_to_translated_code():
    assert per_node(3, 5000, None, emulated=True) == Share(DEFAULT, 408)
    assert per_node(5, 5000, None, emulated=True) == Share(577, 256)


@given(st.integers(1, 64), st.integers(0, 1 << 20), st.booleans())
def test_what_is_given_fits_or_is_refused(nodes, free, emulated):
    try:
        share = per_node(nodes, free, None, emulated=emulated)
    except PiimageError:
        return
    assert LEAST <= share.node <= DEFAULT
    assert share.translated >= 256
    assert nodes * (share.node + share.translated * emulated) + 512 <= free


def test_too_little_is_refused_with_figures():
    with pytest.raises(PiimageError) as caught:
        per_node(5, 4096, None, emulated=True)
    assert "5 nodes with 512 MiB each need 4672 MiB" in caught.value.message
    assert "4096 MiB are available" in caught.value.message
    assert "--memory" in caught.value.hint


def test_a_wish_is_a_wish():
    assert per_node(2, 9000, 2048, emulated=False).node == 2048
    with pytest.raises(PiimageError, match="2 nodes with 8192 MiB each"):
        per_node(2, 9000, 8192, emulated=False)


def test_this_machine_has_some():
    assert available() > 100
