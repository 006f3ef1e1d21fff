"""What is shown: plain lines where nothing can be redrawn, one living line on a terminal (a real pty)."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import textwrap
import time

import pytest

from piimage.cli import console
from piimage.cli.console import Live, Plain, progress_for
from piimage.cli.lines import Line, Rate, span
from piimage.progress import Quiet, human


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"),
        (1.4 * (1 << 30), "1.4 GiB"), (1 << 40, "1.0 TiB"), (5000 << 40, "5000.0 TiB"),
    ],
)  # fmt: skip
def test_bytes_for_people(amount, text):
    assert human(amount) == text


def test_plain_steps(capsys):
    show = Plain()

    with show.step("copying") as task:
        task.total(4096)
        task.advance(1024)
        show.say("by the way")
        with show.step("inner"):
            show.warn("odd")
    show.say("done")

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["copying", "by the way", "  inner", "warning: odd", "done"]


def test_plain_lines_now_and_then(capsys, monkeypatch):
    clock = iter(float(n * 10) for n in range(1000))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    show = Plain()

    with show.step("copying") as task:
        task.total(4 << 20)
        for _ in range(4):
            task.advance(1 << 20)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "copying"
    far = r"  copying  2\.0 MiB of 4\.0 MiB  50 %.*  \d+ s"
    assert any(re.fullmatch(far, line) for line in lines)
    assert re.match(r"copying: done in \d+ s", lines[-1])


def test_a_step_that_failed_is_not_done(capsys, monkeypatch):
    clock = iter(float(n * 10) for n in range(1000))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))

    with pytest.raises(RuntimeError), Plain().step("copying"):
        raise RuntimeError

    assert "done" not in capsys.readouterr().err


def test_which_one(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_for(), Live)
    assert type(progress_for(json_output=True)) is Plain
    assert isinstance(progress_for(quiet=True), Quiet)
    monkeypatch.setenv("TERM", "dumb")
    assert type(progress_for()) is Plain
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    monkeypatch.setenv("TERM", "xterm")
    assert type(progress_for()) is Plain


def on_a_terminal(script, *, columns=80, env=()):
    """What a program writes to a terminal of that width as its stderr."""
    master, slave = pty.openpty()
    os.environ.pop("COLUMNS", None)
    if columns:
        subprocess.run(["stty", "cols", str(columns), "rows", "24"], stdin=slave, check=True)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.DEVNULL, stderr=slave, env={**os.environ, "TERM": "xterm", **dict(env)},
    )  # fmt: skip
    os.close(slave)
    data, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                data += os.read(master, 65536)
            except OSError:  # the last writer closed it
                break
    os.close(master)
    assert child.wait(10) == 0
    return data.decode()


def screen(text):
    """The lines that stay once everything was redrawn."""
    lines = [""]
    for piece in re.split(r"(\r\n|\r\x1b\[K)", text):
        if piece == "\r\n":
            lines.append("")
        elif piece == "\r\x1b[K":
            lines[-1] = ""
        else:
            lines[-1] += re.sub(r"\x1b\[\d+m", "", piece)
    return [line for line in lines if line]


SCRIPT = """
    import time
    from piimage.cli.console import progress_for
    show = progress_for()
    with show.step("copying the base") as task:
        task.total(4 << 20)
        for _ in range(4):
            task.advance(1 << 20)
            time.sleep(0.12)
        show.say("by the way")
        with show.step("inner") as inner:
            inner.note("50 %")
            time.sleep(0.7)
    show.warn("odd")
"""

SHORT = """
    from piimage.cli.console import progress_for
    with progress_for().step("copying the base"):
        pass
"""


def test_live_steps():
    text = on_a_terminal(SCRIPT)

    assert re.search(r"… copying the base  \d\.\d MiB of 4\.0 MiB  \d+ %  \d s", text)
    assert re.search(r"  … inner  50 %  \d s", text)
    stays = screen(text)
    assert stays[0] == "by the way"
    assert re.fullmatch(r"  ✓ inner  \d\.\d s", stays[1])
    assert re.fullmatch(r"✓ copying the base  \d\.\d s", stays[2])
    assert stays[3:] == ["warning: odd"]


def test_live_lines_fit_the_terminal():
    text = on_a_terminal(SCRIPT, columns=24)

    drawn = [p for p in re.split(r"\r\n|\r\x1b\[K", text) if p.startswith(("…", "  …"))]
    assert drawn
    assert max(map(len, drawn)) + len("^C") <= 23  # what a terminal echoes must not wrap


def test_a_terminal_that_does_not_know_its_width():
    assert "… copying the base" in on_a_terminal(SHORT, columns=0)


def test_no_colour():
    assert "\x1b[32m✓" in on_a_terminal(SHORT)
    assert "\x1b[32m" not in on_a_terminal(SHORT, env={"NO_COLOR": "1"}.items())


def test_a_live_step_that_fails_leaves_its_name_and_no_half_line():
    text = on_a_terminal("""
        import sys, time
        from piimage.cli.console import progress_for
        show = progress_for()
        try:
            with show.step("outer"), show.step("inner"):
                time.sleep(0.6)
                raise RuntimeError
        except RuntimeError:
            time.sleep(0.7)
            print("error: why", file=sys.stderr)
    """)

    assert screen(text) == ["  (inner)", "  (outer)", "error: why"]


BOARD = """
    import time
    from piimage.cli.console import progress_for
    show = progress_for()
    names = [f"node{n}" for n in range(COUNT)]
    with show.board("booting", names) as board:
        for name in names:
            board.note(name, "3 s: " + "Started " * 20)
            time.sleep(0.02)
        time.sleep(0.3)
        show.say("by the way")
        for name in names[:-1]:
            board.done(name, "login after 9 s")
        board.done(names[-1], "the kernel panicked", ok=False)
    show.say("done")
"""


def board(count):
    return BOARD.replace("COUNT", str(count))


def drawn(text):
    """The screen after all of it: lines, with the cursor going up and what is below it cleared."""
    lines, at = [""], 0
    for piece in re.split(r"(\r\n|\r\x1b\[K|\r\x1b\[\d+A\x1b\[J)", text):
        if piece == "\r\n":
            at += 1
            if at == len(lines):
                lines.append("")
        elif piece == "\r\x1b[K":
            lines[at] = ""
        elif piece.startswith("\r\x1b["):
            at -= int(re.search(r"\d+", piece)[0])
            lines[at:] = [""]
        else:
            lines[at] += re.sub(r"\x1b\[\d+m", "", piece)
    return [line for line in lines if line]


def test_several_things_have_a_line_each():
    text = on_a_terminal(board(3), columns=60)

    assert re.search(r"… booting  0 of 3  \d s\r\n  … node0  3 s: Started", text)
    stays = drawn(text)
    assert stays[0] == "by the way"
    assert re.fullmatch(r"✗ booting  \d\.\d s", stays[1])
    assert stays[2:] == [
        "  ✓ node0  login after 9 s",
        "  ✓ node1  login after 9 s",
        "  ✗ node2  the kernel panicked",
        "done",
    ]
    rows = re.findall(r"  … node\d[^\r\x1b]*", text)
    assert rows
    assert max(map(len, rows)) <= 59


def test_more_things_than_the_terminal_has_lines():
    text = on_a_terminal(board(60))

    assert re.search(r"    and \d+ more", text)
    stays = drawn(text)
    assert [line for line in stays if "node" in line][-1] == "  ✗ node59  the kernel panicked"
    assert sum("login after" in line for line in stays) == 59
    blocks = re.findall(r"\x1b\[(\d+)A", text)
    assert max(map(int, blocks)) < 24


def test_plain_lines_of_several_things(capsys, monkeypatch):
    clock = iter(float(n * 10) for n in range(1000))
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    show = Plain()

    with show.board("booting", ["a", "bc"]) as lines:
        for n in range(4):
            lines.note("a", f"{n} s: x")
        lines.done("a", "login after 9 s")
        lines.note("bc", "y")
        lines.note("bc", "z")
        lines.done("bc", "it died", ok=False)

    err = capsys.readouterr().err.splitlines()
    assert err[0] == "booting"
    assert "  … a   1 s: x" in err
    assert "  ✓ a   login after 9 s" in err
    assert "  ✗ bc  it died" in err
    assert not any(line.startswith("  … a") for line in err[err.index("  ✓ a   login after 9 s") :])
    assert re.match(r"booting: failed after \d+ s", err[-1])


def test_what_ended_well_altogether_is_done(capsys):
    with Plain().board("booting", ["a"]) as lines:
        lines.done("a", "login after 9 s")

    assert "booting: done in 0 s" in capsys.readouterr().err


def test_a_rate_is_of_the_last_seconds():
    rate = Rate()
    rate.mark(1000, 100.0)  # what an earlier run left
    assert rate.per_second(100.5) == 0
    for second in range(1, 31):
        rate.mark(1000 + 50 * second, 100.0 + second)
    assert rate.per_second(130.0) == pytest.approx(50)
    for second in range(31, 61):
        rate.mark(2500 + 500 * (second - 30), 100.0 + second)
    assert rate.per_second(160.0) == pytest.approx(500)
    assert rate.per_second(200.0) < 100  # nothing comes any more


def test_a_rate_begins_again_where_the_amount_does():
    rate = Rate()
    rate.mark(5000, 0.0)
    rate.mark(0, 10.0)
    rate.mark(100, 12.0)

    assert rate.per_second(12.0) == pytest.approx(50)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1:00"), (185, "3:05"), (3725, "1:02:05")],
)
def test_times(seconds, text):
    assert span(seconds) == text


def test_a_step_tells_how_fast_it_is_and_how_long_it_takes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("piimage.cli.lines.time.monotonic", lambda: now[0])
    line = Line("downloading", Silent())
    line.total(100 << 20)
    line.advance(10 << 20)
    now[0] += 5
    line.advance(10 << 20)

    assert line.status() == "downloading  20.0 MiB of 100.0 MiB  20 %  2.0 MiB/s  40 s left  5 s"
    line.note("trying again")
    assert "trying again" in line.status()


class Silent:
    def update(self, shown):
        pass

    def ended(self, shown, name):
        pass
