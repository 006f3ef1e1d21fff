"""A matrix of measured values as inline SVG: from each node to each other one. Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    #: (from, to) -> value.
    Matrix = Mapping[tuple[str, str], float]

#: Pixels: a cell at most and at least, the whole of the cells where there are many, a letter of a label.
_LARGEST, _SMALLEST, _WHOLE, _LETTER = 64, 12, 640, 7
#: A cell narrower than this shows no number; the pointer still does.
_NUMBERED = 40
#: Labels of columns stand upright beside one another up to this many letters.
_SHORT = 8
#: The faintest and the fullest cell: numbers are read on both.
_FAINT, _FULL = 0.08, 0.75


def number(value: float) -> str:
    """Three digits where there are that many, no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004 -- digits


def svg(names: Sequence[str], values: Matrix, *, title: str, unit: str) -> str:
    """Rows send, columns receive; a cell's strength goes from the smallest to the largest value.

    A pair without a value is drawn empty, the diagonal not at all.
    """
    cell = max(_SMALLEST, min(_LARGEST, _WHOLE // max(1, len(names))))
    left = _LETTER * max(map(len, names), default=0) + 12
    upright = cell >= _NUMBERED and all(len(name) <= _SHORT for name in names)
    top = 24 if upright else left
    width, height = left + cell * len(names), top + cell * len(names)
    low, high = min(values.values(), default=0.0), max(values.values(), default=0.0)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg class="matrix" {size} role="img" aria-label="{escape(title)}">']
    for at, name in enumerate(names):
        middle = at * cell + cell / 2
        parts.append(f'<text class="row" x="{left - 8}" y="{top + middle:g}">{escape(name)}</text>')
        x, y = left + middle, top - 8
        turn = "" if upright else f' transform="rotate(-90 {x:g} {y})"'
        kind = "column" if upright else "turned"
        parts.append(f'<text class="{kind}" x="{x:g}" y="{y}"{turn}>{escape(name)}</text>')
    for row, sender in enumerate(names):
        for column, receiver in enumerate(names):
            if row != column:
                value = values.get((sender, receiver))
                x, y = left + column * cell, top + row * cell
                said = f"{sender} to {receiver}: "
                said += "no answer" if value is None else f"{number(value)} {unit}"
                drawn = _empty(cell) if value is None else _full(value, low, high, cell)
                parts.append(
                    f'<g transform="translate({x} {y})"><title>{escape(said)}</title>{drawn}</g>'
                )
    return "".join([*parts, "</svg>"])


def _full(value: float, low: float, high: float, size: int) -> str:
    """A square as strong as its value lies between the extremes, and its number where there is room."""
    share = (value - low) / (high - low) if high > low else 0.5
    strength = _FAINT + share * (_FULL - _FAINT)
    text = ""
    if size >= _NUMBERED:
        text = f'<text class="value" x="{size / 2:g}" y="{size / 2:g}">{number(value)}</text>'
    return f'<rect class="cell" {_square(size)} fill-opacity="{strength:.2f}"/>{text}'


def _empty(size: int) -> str:
    return f'<rect class="empty" {_square(size)}/>'


def _square(size: int) -> str:
    return f'x="1" y="1" width="{size - 2}" height="{size - 2}" rx="3"'
