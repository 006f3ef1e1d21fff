"""Where things stand in a file."""

from __future__ import annotations

from typing import NamedTuple

#: A field: keys and list indices from the top, such as `("nodes", 2, "mac")`.
FieldPath = tuple[str | int, ...]


class Span(NamedTuple):
    """Line and column from 0, in characters; the end is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int
