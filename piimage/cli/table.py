"""Tables of text: columns as wide as needed, and what does not fit the terminal in further tables below."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = "  "


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
