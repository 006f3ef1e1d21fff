"""Tables for terminals of any width."""

from __future__ import annotations

import io
import os
import pty
import termios

import pytest

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
