"""What the bar can show, as functions of time: a show gives a frame for every moment and says how often to ask.

Everything that a show knows of its node comes through the callables it is made with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .apa102 import BLACK, PIXELS, Colour, Frame
from .health import Finding, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol  # novm -- read by type checkers alone
else:
    Protocol = object  # Python 3.7 has none

GREEN: Colour = (0, 120, 0)
BLUE: Colour = (0, 0, 160)
AMBER: Colour = (160, 70, 0)
RED: Colour = (200, 0, 0)
WHITE: Colour = (255, 255, 255)

#: From idle to busy along the bar.
_LOAD = (GREEN,) * 4 + (AMBER,) * 2 + (RED,) * 2
_COLOURS = {
    State.OK: GREEN,
    State.WAITING: BLUE,
    State.WARNING: AMBER,
    State.BAD: RED,
    State.UNKNOWN: BLACK,
}
#: Ticks of all processors together; what a shorter time holds says nothing.
_LEAST_TICKS = 20
#: Seconds of one way of the scanner's eye, and how many LEDs its glow reaches to each side.
_SWEEP, _GLOW = 0.8, 2.0
#: Seconds of a blink, on and off together.
_BLINK = 1.0


class Show(Protocol):
    """`period` is how many seconds a frame stands before the next one is asked for."""

    period: float

    def frame(self, elapsed: float) -> Frame:
        """The frame at `elapsed` seconds since the show began."""

    def caption(self) -> str:
        """One line for people about what is shown."""


class Load:
    """The share of the processors that is busy, as a bar from green to red.

    `sample` gives the ticks so far that were busy, and all of them (100 a second and processor).
    """

    period = 0.5

    def __init__(self, sample: Callable[[], tuple[float, float]]) -> None:
        self._sample = sample
        self._before = sample()
        self._share = 0.0

    def frame(self, elapsed: float) -> Frame:  # noqa: ARG002 -- every show has it
        """The bar; its last LED is lit in part."""
        now = self._sample()
        busy, total = now[0] - self._before[0], now[1] - self._before[1]
        if total >= _LEAST_TICKS:
            self._share, self._before = min(max(busy / total, 0.0), 1.0), now
        lit = self._share * PIXELS
        return tuple(
            _dimmed(colour, min(max(lit - place, 0.0), 1.0)) for place, colour in enumerate(_LOAD)
        )

    def caption(self) -> str:
        """The same as a number."""
        return f"load {self._share:.0%}"


class Larson:
    """A red eye that goes to and fro."""

    period = 0.08

    def frame(self, elapsed: float) -> Frame:
        """The eye's place is a triangle wave; light falls off to both sides."""
        way = elapsed / _SWEEP % 2.0
        eye = (way if way <= 1.0 else 2.0 - way) * (PIXELS - 1)
        shares = (max(0.0, 1.0 - abs(place - eye) / _GLOW) ** 2 for place in range(PIXELS))
        return tuple(_dimmed(RED, share) for share in shares)

    def caption(self) -> str:
        """Its name."""
        return "larson"


class Locate:
    """The whole bar blinks white."""

    period = _BLINK / 2

    def frame(self, elapsed: float) -> Frame:
        """On in the first half of each second."""
        return (WHITE if _on(elapsed) else BLACK,) * PIXELS

    def caption(self) -> str:
        """Its name."""
        return "locate"


class Status:
    """The node's health: a finding an LED, what is bad blinks, and the last LED beats while the show lives."""

    period = _BLINK / 2

    def __init__(self, findings: Callable[[], Sequence[Finding]]) -> None:
        self._findings = findings

    def frame(self, elapsed: float) -> Frame:
        """Colours by state; a blink tells red from green for those who cannot."""
        on = _on(elapsed)
        colours = [
            BLACK if found.state is State.BAD and not on else _COLOURS[found.state]
            for found in self._findings()
        ][: PIXELS - 1]
        colours += [BLACK] * (PIXELS - 1 - len(colours))
        return (*colours, _dimmed(WHITE, 0.25 if on else 0.05))

    def caption(self) -> str:
        """Whatever is not simply well, in words."""
        found = self._findings()
        said = (f"{one.name}: {one.words}" for one in found if one.state is not State.OK)
        return "; ".join(said) or ("all is well" if found else "looking")


def _on(elapsed: float) -> bool:
    return elapsed % _BLINK < _BLINK / 2


def _dimmed(colour: Colour, share: float) -> Colour:
    """`colour` with `share` of its light, 0 to 1."""
    red, green, blue = colour
    return (round(red * share), round(green * share), round(blue * share))
