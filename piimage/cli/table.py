"""Tables of text: columns as wide as needed, and what does not fit the terminal in further tables below."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = "  "
#: The least that prose gets beside other columns, and by how much it is indented below them.
_LEAST = 30
_INDENT = "    "


def room() -> int | None:
    """Columns of the terminal that stdout is; None where it is none, and a line may be as long as it likes."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def aligned(rows: Sequence[Sequence[str]], most: int | None = None) -> list[str]:
    """Rows of equal length as lines, each cell under its heading.

    Columns that would go beyond `most` begin a table of their own below, with the first column again: a
    terminal would wrap them to where they belong to nothing. One column is never broken.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for group in _groups(widths, most):
        lines += [""] if lines else []
        lines += [
            _GAP.join(row[column].ljust(widths[column]) for column in group).rstrip()
            for row in rows
        ]
    return lines


def described(rows: Sequence[Sequence[str]], most: int | None = None) -> list[str]:
    """As `aligned`, for rows that end with prose: it is wrapped in its column, or below its row where that is narrow.

    A word is never broken.
    """
    whole = aligned(rows)
    others = aligned([row[:-1] for row in rows])
    widest = max(map(len, others), default=0)
    if most is None or all(len(line) <= most for line in whole):
        return whole
    if widest > most:
        return aligned(rows, most)
    space = most - widest - len(_GAP)
    lines: list[str] = []
    for row, line in zip(rows, others, strict=True):
        if space >= _LEAST:
            first, *more = _wrapped(row[-1], space)
            lines.append((line.ljust(widest) + _GAP + first).rstrip())
            lines += [" " * widest + _GAP + words for words in more]
        else:
            lines += [line, *(_INDENT + words for words in _wrapped(row[-1], most - len(_INDENT)))]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """At least one line."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _groups(widths: Sequence[int], most: int | None) -> list[list[int]]:
    """The columns of each table, the first one in all of them."""
    groups = [[0]] if widths else []
    taken = widths[0] if widths else 0
    for column, width in enumerate(widths[1:], 1):
        taken += len(_GAP) + width
        if most is not None and taken > most and len(groups[-1]) > 1:
            groups.append([0])
            taken = widths[0] + len(_GAP) + width
        groups[-1].append(column)
    return groups
