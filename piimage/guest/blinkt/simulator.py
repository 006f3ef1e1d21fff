"""A bar in the terminal: the same bytes on the same two lines, taken apart by model LEDs and drawn."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from .apa102 import MAX_BRIGHTNESS, Chain, Pixel
from .lines import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

_LED, _DARK_LED = "\u25cf", "\u25cb"
#: A LED at a low setting is bright to the eye; on a screen it would be black.
_DIMMEST = 0.6


class SimulatedWire(Wire):
    """Two lines that lead to a `Chain`."""

    def __init__(self) -> None:
        self.chain = Chain()
        words = {(data, clock): (data, clock) for data in (0, 1) for clock in (0, 1)}
        super().__init__(lambda levels: self.chain.level(*levels), words, "simulator")


class Screen:
    """Draws what the LEDs show: over and over on one line of a terminal, or a line of text for every frame."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._colour = self._live and not os.environ.get("NO_COLOR")

    def draw(self, pixels: Sequence[Pixel | None], caption: str) -> None:
        """Show the bar and, as far as the line has room, the caption."""
        bar = " ".join(painted(pixel) if self._colour else spelt(pixel) for pixel in pixels)
        if not self._live:
            self._out.write(f"{bar}  {caption}\n")
            return
        taken = len(pixels) * (2 if self._colour else 10) + 3
        room = max(shutil.get_terminal_size().columns - taken, 0)
        self._out.write(f"\r  {bar}  {caption[:room]}\033[K")
        self._out.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._live:
            self._out.write("\n")


def painted(pixel: Pixel | None) -> str:
    """An LED in 24-bit colour; one that is off is a grey ring."""
    if pixel is None or pixel.brightness == 0 or not any(pixel[1:]):
        return f"\033[38;2;60;60;60m{_DARK_LED}\033[0m"
    light = _DIMMEST + (1 - _DIMMEST) * pixel.brightness / MAX_BRIGHTNESS
    strongest = max(pixel[1:])
    # The eye sees dim light brighter than its number.
    light *= (strongest / 255) ** 0.4 * 255 / strongest
    red, green, blue = (min(round(value * light), 255) for value in pixel[1:])
    return f"\033[38;2;{red};{green};{blue}m{_LED}\033[0m"


def spelt(pixel: Pixel | None) -> str:
    """An LED as text: colour in hexadecimal and brightness, `-` for one that is off."""
    if pixel is None or pixel.brightness == 0 or not any(pixel[1:]):
        return "-"
    red, green, blue = pixel[1:]
    return f"{red:02x}{green:02x}{blue:02x}@{pixel.brightness}"
