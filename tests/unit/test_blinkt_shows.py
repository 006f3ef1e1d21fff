"""What the Blinkt shows over time, how it is played, and how it looks in a terminal."""

from __future__ import annotations

import io
import os
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from piimage.guest.blinkt import apa102, player, shows, simulator
from piimage.guest.blinkt.health import Finding, State
from piimage.guest.blinkt.lines import Wire

TIMES = st.floats(0, 1e7)


def lit(frame):
    return [place for place, colour in enumerate(frame) if any(colour)]


def shown(show, elapsed=0.0):
    """The frame, once it has been through the encoder: so every frame here fits."""
    frame = show.frame(elapsed)
    apa102.encode(frame, 31)
    return frame


@given(st.integers(0, 10**6), st.integers(20, 10**6))
def test_the_bar_is_as_long_as_the_processors_are_busy(busy, total):
    busy = min(busy, total)
    samples = iter([(1000, 5000), (1000 + busy, 5000 + total)])
    show = shows.Load(lambda: next(samples))

    frame = shown(show)

    share = busy / total
    assert len(lit(frame)) in {int(share * 8), int(share * 8) + 1}
    assert lit(frame) == list(range(len(lit(frame))))
    assert show.caption() == f"load {share:.0%}"


def test_a_bar_whose_clock_stands_still_keeps_what_it_showed():
    samples = iter([(0, 0), (50, 100), (50, 100), (10, 90), (50, 119), (50, 200)])
    show = shows.Load(lambda: next(samples))
    first = shown(show)

    assert lit(first) == [0, 1, 2, 3]
    assert [shown(show) for _ in range(3)] == [first] * 3
    assert lit(shown(show)) == []


def test_full_load_is_green_then_amber_then_red():
    samples = iter([(0, 0), (100, 100)])
    frame = shown(shows.Load(lambda: next(samples)))
    assert frame == (shows.GREEN,) * 4 + (shows.AMBER,) * 2 + (shows.RED,) * 2


@given(TIMES)
def test_the_eye_is_red_and_never_out_of_sight(elapsed):
    frame = shown(shows.Larson(), elapsed)
    assert 1 <= len(lit(frame)) <= 5
    assert all(colour[1:] == (0, 0) for colour in frame)
    assert max(colour[0] for colour in frame) >= 100


def test_the_eye_goes_to_and_fro():
    show = shows.Larson()
    ticks = [show.frame(n * show.period + 0.013) for n in range(41)]
    brightest = [max(range(8), key=[red for red, _, _ in frame].__getitem__) for frame in ticks]
    assert brightest[:11] == sorted(brightest[:11])
    assert brightest[10:21] == sorted(brightest[10:21], reverse=True)
    assert {*brightest} == set(range(8))
    assert brightest[20:41] == brightest[:21]


@given(TIMES)
def test_locate_is_all_or_nothing(elapsed):
    assert lit(shown(shows.Locate(), elapsed)) in ([], list(range(8)))


def test_locate_blinks_once_a_second():
    show = shows.Locate()
    on = [bool(lit(show.frame(n * show.period))) for n in range(4)]
    assert on == [True, False, True, False]


def test_what_is_bad_blinks_and_all_else_stands():
    states = [State.OK, State.WAITING, State.WARNING, State.BAD, State.UNKNOWN, State.OK, State.OK]
    show = shows.Status(lambda: [Finding(state.value, state, "x") for state in states])

    on, off = shown(show, 0.0), shown(show, 0.5)

    assert on[:5] == (shows.GREEN, shows.BLUE, shows.AMBER, shows.RED, apa102.BLACK)
    assert off[3] == apa102.BLACK
    assert (on[:3], on[4:7]) == (off[:3], off[4:7])
    assert any(on[7])
    assert any(off[7])
    assert on[7] != off[7]


def test_the_caption_names_what_is_not_well():
    well = Finding("wire", State.OK, "eth0")
    waits = Finding("share", State.WAITING, "waits for its first use")
    hot = Finding("temperature", State.BAD, "83 C")
    assert shows.Status(lambda: [well, waits, hot]).caption() == (
        "share: waits for its first use; temperature: 83 C"
    )
    assert shows.Status(lambda: [well]).caption() == "all is well"


def test_before_the_first_look_only_the_heartbeat_shows():
    show = shows.Status(list)
    assert lit(shown(show)) == [7]
    assert show.caption() == "looking"


class Counting(Wire):
    """A wire that counts the frames."""

    def __init__(self):
        self.sent = []

    def send(self, data):
        self.sent.append(data)


class Standing(shows.Locate):
    """A show whose frames come quickly and are all the same."""

    period = 0.01

    def frame(self, elapsed):
        return apa102.DARK


def test_a_picture_that_stands_is_clocked_out_once():
    wire, show = Counting(), Standing()

    player.play(show, wire, 4, seconds=0.2, stop=threading.Event())

    assert len(wire.sent) == 1


def test_a_picture_that_stands_is_refreshed(monkeypatch):
    monkeypatch.setattr(player, "REFRESH", 0.05)
    wire, show = Counting(), Standing()

    player.play(show, wire, 4, seconds=0.3, stop=threading.Event())

    assert 2 <= len(wire.sent) <= 7


def test_a_show_ends_at_once_when_it_is_stopped():
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    show = shows.Locate()
    show.period = 60.0
    began = time.monotonic()

    player.play(show, Counting(), 4, seconds=None, stop=stop)

    assert time.monotonic() - began < 10


def test_a_show_without_time_still_gives_one_frame():
    wire = Counting()
    player.play(shows.Locate(), wire, 4, seconds=0, stop=threading.Event())
    assert len(wire.sent) == 1


def test_an_led_that_is_off_is_grey_and_a_dim_one_can_be_seen():
    assert simulator.painted(None) == simulator.painted(apa102.Pixel(0, 200, 0, 0))
    assert "38;2;60;60;60" in simulator.painted(apa102.Pixel(5, 0, 0, 0))
    dim = simulator.painted(apa102.Pixel(4, 0, 120, 0))
    assert int(dim.split(";")[3]) > 80


@given(st.builds(apa102.Pixel, st.integers(0, 31), *[st.integers(0, 255)] * 3))
def test_every_led_has_a_colour_a_terminal_knows(pixel):
    values = simulator.painted(pixel).removeprefix("\033[38;2;").partition("m")[0].split(";")
    assert all(0 <= int(value) <= 255 for value in values)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_line_that_is_drawn_over(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 24)))
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    screen = simulator.Screen(out)
    screen.draw([apa102.Pixel(4, 255, 0, 0)] * 8, "x" * 200)
    screen.draw([None] * 8, "y")
    screen.end()
    assert out.getvalue().count("\n") == 1
    assert "x" * 21 + "\033[K" in out.getvalue()
    assert "x" * 22 not in out.getvalue()


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    simulator.Screen(out).draw([apa102.Pixel(4, 255, 0, 0)] * 8, "x")
    assert "38;2" not in out.getvalue()
    assert "ff0000@4" in out.getvalue()
