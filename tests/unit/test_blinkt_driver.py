"""The Blinkt's protocol and its two lines: against model LEDs, and both APIs of libgpiod."""

from __future__ import annotations

import sys

import fake_gpiod
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.guest.blinkt import apa102, lines, player
from piimage.guest.blinkt.apa102 import Chain, Pixel, encode
from piimage.guest.blinkt.simulator import SimulatedWire

BYTE = st.integers(0, 255)
FRAMES = st.tuples(*[st.tuples(BYTE, BYTE, BYTE)] * apa102.PIXELS)
BRIGHTNESS = st.integers(0, apa102.MAX_BRIGHTNESS)
RAINBOW = tuple((10 * i + 1, 20 * i + 2, 255 - i) for i in range(8))
APIS = {"1": fake_gpiod.version_1, "2": fake_gpiod.version_2}
BOARDS = {
    "pi3": {"gpiochip0": ("pinctrl-bcm2835", 54), "gpiochip1": ("raspberrypi-exp-gpio", 8)},
    "pi4": {"gpiochip0": ("pinctrl-bcm2711", 58), "gpiochip1": ("raspberrypi-exp-gpio", 8)},
    "pi5": {"gpiochip10": ("gpio-brcmstb@107d508500", 32), "gpiochip4": ("pinctrl-rp1", 54)},
}


def expected(frame, brightness):
    return [Pixel(brightness, *colour) for colour in frame]


@settings(deadline=None)  # bit by bit, on a busy machine
@given(FRAMES, BRIGHTNESS)
def test_what_is_clocked_out_is_what_the_leds_show(frame, brightness):
    wire = SimulatedWire()

    wire.send(encode(frame, brightness))

    assert wire.chain.pixels == expected(frame, brightness)
    assert wire.chain.stray == 0


@settings(deadline=None)  # bit by bit, on a busy machine
@given(st.lists(st.tuples(FRAMES, BRIGHTNESS), min_size=1, max_size=4))
def test_each_frame_replaces_the_one_before(frames):
    wire = SimulatedWire()
    for frame, brightness in frames:
        wire.send(encode(frame, brightness))
        assert wire.chain.pixels == expected(frame, brightness)


@settings(deadline=None)  # bit by bit, on a busy machine
@given(FRAMES, BRIGHTNESS, st.lists(st.integers(0, 1), max_size=70))
def test_leds_that_heard_noise_are_right_again_after_two_frames(frame, brightness, noise):
    wire = SimulatedWire()
    for bit in noise:
        wire.chain.level(bit, 0)
        wire.chain.level(bit, 1)

    wire.send(encode(frame, brightness))
    wire.send(encode(frame, brightness))

    assert wire.chain.pixels == expected(frame, brightness)


def test_the_bytes_are_those_of_the_data_sheet():
    frame = ((1, 2, 3), *[(0, 0, 0)] * 7)

    data = encode(frame, 31)

    assert data[:8] == bytes((0, 0, 0, 0, 0xFF, 3, 2, 1))
    assert data[8:12] == bytes((0xFF, 0, 0, 0))
    assert len(data) == 4 + 8 * 4 + 5


def test_the_last_led_gets_at_least_36_clocks_after_its_data():
    wire = SimulatedWire()
    wire.send(encode(RAINBOW, 1))
    assert wire.chain.trailing >= 36


def test_a_bar_is_dark_until_it_is_told_something():
    wire = SimulatedWire()
    assert wire.chain.pixels == [None] * 8
    player.clear(wire)
    assert wire.chain.pixels == [Pixel(0, 0, 0, 0)] * 8


def test_a_frame_without_a_start_is_not_understood():
    wire = SimulatedWire()
    wire.send(b"\xff" * 36)
    assert wire.chain.pixels == [None] * 8


@pytest.mark.parametrize(
    ("frame", "brightness"),
    [(RAINBOW[:7], 1), (RAINBOW, 32), (RAINBOW, -1), ([(256, 0, 0)] * 8, 1)],
)
def test_what_does_not_fit_is_refused(frame, brightness):
    with pytest.raises(ValueError, match=r"\d"):
        encode(frame, brightness)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("board", BOARDS)
def test_every_board_is_driven_through_every_api(api, board, monkeypatch, tmp_path):
    chain = Chain()
    kernel = fake_gpiod.Kernel(dict(BOARDS[board]), listen=chain.level)
    fake_gpiod.install(monkeypatch, tmp_path, kernel, APIS[api](kernel))

    wire = lines.open_wire()
    assert set(kernel.held.values()) == {"piimage-blinkt"}
    wire.send(encode(RAINBOW, 17))

    assert chain.pixels == expected(RAINBOW, 17)
    assert chain.stray == 0
    # Two settings a bit, data together with the falling clock, and one at the end.
    assert kernel.sets == 2 * 8 * 41 + 1
    assert kernel.levels == {23: 0, 24: 0}
    wire.close()
    assert kernel.held == {}


@pytest.mark.parametrize("api", APIS)
def test_lines_that_another_program_holds_are_named(api, monkeypatch, tmp_path):
    kernel = fake_gpiod.Kernel(dict(BOARDS["pi4"]))
    fake_gpiod.install(monkeypatch, tmp_path, kernel, APIS[api](kernel))
    first = lines.open_wire()

    with pytest.raises(lines.NoBarError, match=r"GPIO 23 and 24 of .*: in use by another program"):
        lines.open_wire()

    first.close()
    lines.open_wire().close()


@pytest.mark.parametrize("api", APIS)
def test_a_machine_without_the_header_is_refused_with_what_was_seen(api, monkeypatch, tmp_path):
    kernel = fake_gpiod.Kernel({"gpiochip0": ("9030000.pl061", 8)})
    fake_gpiod.install(monkeypatch, tmp_path, kernel, APIS[api](kernel))

    with pytest.raises(lines.NoBarError, match=r"no GPIO chip of a Raspberry Pi .*9030000\.pl061"):
        lines.open_wire()


@pytest.mark.parametrize("api", APIS)
def test_a_user_who_may_not_is_told_so(api, monkeypatch, tmp_path):
    kernel = fake_gpiod.Kernel(dict(BOARDS["pi4"]), denied=True)
    fake_gpiod.install(monkeypatch, tmp_path, kernel, APIS[api](kernel))

    with pytest.raises(lines.NoBarError, match="try sudo"):
        lines.open_wire()


def test_without_the_library_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(lines.NoBarError, match="python3-libgpiod"):
        lines.open_wire()


def test_the_library_of_this_machine_is_asked_as_it_wants_to_be(monkeypatch, tmp_path):
    """Whichever API Debian's python3-libgpiod has here: a device that is no chip is what it says it is."""
    (tmp_path / "gpiochip0").symlink_to("/dev/null")
    monkeypatch.setattr(lines, "DEVICES", tmp_path)

    with pytest.raises(lines.NoBarError, match=r"gpiochip0: (Inappropriate ioctl|No such device)"):
        lines.open_wire()


def test_the_fake_has_nothing_that_the_library_of_this_machine_lacks():
    gpiod = lines.load_gpiod()
    fake = APIS["2" if hasattr(gpiod, "LineSettings") else "1"](fake_gpiod.Kernel({}))

    assert {name for name in vars(fake) if not hasattr(gpiod, name)} <= {"__version__"}
    chip = {name for name in dir(fake.Chip) if not name.startswith("_")}
    assert {name for name in chip if not hasattr(gpiod.Chip, name)} == set()
