"""Tables for terminals of any width."""

from __future__ import annotations

import io
import os
import pty
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.cli import table
from piimage.cli.console import Live

ROWS = [["node", "login", "off"], ["n0", "133 s", "9 s"], ["n10", "140 s", "-"]]


def test_as_wide_as_needed():
    assert table.aligned(ROWS) == ["node  login  off", "n0    133 s  9 s", "n10   140 s  -"]


def test_what_does_not_fit_goes_below_with_the_first_column():
    folded = [
        "node  login", "n0    133 s", "n10   140 s", "", "node  off", "n0    9 s", "n10   -",
    ]  # fmt: skip

    assert table.aligned(ROWS, 16) == table.aligned(ROWS)
    assert table.aligned(ROWS, 15) == folded
    assert table.aligned(ROWS, 1) == folded


TOLD = [["name", "size", "description"], ["a", "1 GiB", "one two three four five six seven eight"]]


def test_prose_is_wrapped_in_its_column():
    beside = 6 + 2 + 5 + 30

    lines = table.described(TOLD, beside)

    assert lines == [
        "name  size   description", "a     1 GiB  one two three four five six", "             seven eight",
    ]  # fmt: skip
    assert table.described(TOLD, beside + 20) == table.described(TOLD) == table.aligned(TOLD)


def test_prose_with_little_room_goes_below_its_row():
    assert table.described(TOLD, 42) == [
        "name  size", "    description", "a     1 GiB", "    one two three four five six seven", "    eight",
    ]  # fmt: skip
    assert table.described(TOLD, 10) == table.aligned(TOLD, 10)


@given(
    st.lists(st.tuples(st.text("ab", max_size=9), st.text("cd", max_size=9), st.text("ef ", max_size=99)), min_size=1),
    st.integers(30, 120),
)  # fmt: skip
def test_prose_keeps_its_words_and_fits(rows, most):
    lines = table.described(rows, most)
    longest = max(len(word) for row in rows for word in ("", *row[2].split()))

    words = [word for row in rows for word in " ".join(row).split()]
    assert " ".join(lines).split() == words
    assert all(len(line) <= max(most, longest + 4) for line in lines)


def test_nothing_at_all():
    assert table.aligned([]) == []
    assert table.aligned([[], []]) == []


def test_no_terminal_has_no_width(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert table.room() is None


@pytest.mark.parametrize("columns", [0, 1, 2, 3, 4, 20, 79])
def test_progress_fits_a_terminal_of_any_width(monkeypatch, columns):
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    monkeypatch.delenv("COLUMNS", raising=False)
    with os.fdopen(follower, "w") as stream, os.fdopen(leader, "rb") as screen:
        monkeypatch.setattr("sys.stderr", stream)
        live = Live()
        with live.board("booting 3 nodes at once", ["n0", "n1", "n2"]) as board:
            board.note("n1", "x" * 200)
            drawn = os.read(screen.fileno(), 65536).decode()
    rows = drawn.replace("\x1b[K", "").replace("\x1b[J", "").replace("\r", "").split("\n")
    assert rows[0][:1] == "…"
    assert all(len(row) <= max(1, (columns or 80) - 3) for row in rows[:4])
