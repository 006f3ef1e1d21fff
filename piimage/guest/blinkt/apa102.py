"""The protocol of APA102 LEDs: a frame as the bytes that are clocked out, and back into what the LEDs show.

On the wire a frame is 32 zero bits, then per LED `111`, five bits of brightness and a byte each of blue, green
and red, all of them most significant bit first, taken over at the rising edge of the clock; then an end frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

PIXELS = 8
MAX_BRIGHTNESS = 31

#: Red, green, blue, each 0 to 255.
Colour = tuple[int, int, int]
#: A colour for each LED, the first on the wire first.
Frame = tuple[Colour, ...]

BLACK: Colour = (0, 0, 0)
DARK: Frame = (BLACK,) * PIXELS

_START = bytes(4)
#: Each LED hands the data on half a clock late, so the last ones want clocks after the data. The data sheet has
#: half a clock per LED; Pimoroni's driver sends 36 since one batch of LEDs wants that many. These are 40.
_END = bytes(5)
_HEADER = 0b111


class Pixel(NamedTuple):
    """What one LED shows: `brightness` 0 to 31, and the three colours 0 to 255."""

    brightness: int
    red: int
    green: int
    blue: int


def encode(frame: Sequence[Colour], brightness: int) -> bytes:
    """All bytes of a frame; raises `ValueError` for a value that does not fit."""
    if len(frame) != PIXELS:
        raise ValueError(f"{len(frame)} colours for {PIXELS} LEDs")
    if not 0 <= brightness <= MAX_BRIGHTNESS:
        raise ValueError(f"brightness {brightness} is not 0 to {MAX_BRIGHTNESS}")
    words = (bytes((_HEADER << 5 | brightness, blue, green, red)) for red, green, blue in frame)
    return _START + b"".join(words) + _END


class Chain:
    """A row of LEDs that listens to two lines: the simulator's other end.

    `pixels` is what the LEDs show; None for one that was never told. `trailing` counts the clocks since the last
    LED had its word, `stray` the words that are neither an LED's nor a start frame.
    """

    def __init__(self, length: int = PIXELS) -> None:
        self.pixels: list[Pixel | None] = [None] * length
        self.trailing = 0
        self.stray = 0
        self._clock = 0
        self._zeros = 0
        self._word: list[int] | None = None
        self._next = 0

    def level(self, data: int, clock: int) -> None:
        """Both lines have these levels now."""
        if clock and not self._clock:
            self._bit(data)
        self._clock = clock

    def _bit(self, bit: int) -> None:
        self.trailing += 1
        if self._word is None:
            if bit and self._zeros >= len(_START) * 8:
                self._word, self._next = [1], 0
            self._zeros = 0 if bit else self._zeros + 1
            return
        self._word.append(bit)
        if len(self._word) == 32:  # noqa: PLR2004 -- bits of a word
            self._take(int("".join(map(str, self._word)), 2))

    def _take(self, word: int) -> None:
        """A whole word has come in."""
        self._word = []
        if word >> 29 == _HEADER:
            if self._next < len(self.pixels):
                brightness, blue, green, red = word.to_bytes(4, "big")
                self.pixels[self._next] = Pixel(brightness & MAX_BRIGHTNESS, red, green, blue)
                self.trailing = 0
            self._next += 1
            return
        self.stray += word != 0
        self._word, self._zeros = None, 0 if word else 32
