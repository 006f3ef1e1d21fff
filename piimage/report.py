"""Diagnostics: what is wrong, where, and what to do, as text for people and dicts for programs.

Pure and low: it knows neither YAML nor cluster.yaml. Whoever makes a `Diagnostic` has masked
secrets in `source` already; nothing here reads a file.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Columns of source shown around a caret before the line is cut.
WIDTH = 100
TAB = "    "
_CUT = "..."
_COLOURS = {"error": "\033[1;31m", "warning": "\033[1;33m", "note": "\033[1;36m", "dim": "\033[34m"}
_BOLD, _RESET = "\033[1m", "\033[0m"


class Severity(StrEnum):
    """`error` stops the command; the other two do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One finding.

    `line` and the columns count from 1, `end_column` is one past the last character, all in
    characters of the line as it stands in the file. `path` is a field such as `nodes[2].mac`,
    `code` a stable name such as `unknown-key`. `source` is the text of the line, with secrets
    masked by as many characters, so that columns hold.
    """

    severity: Severity
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    end_column: int | None = None
    hint: str | None = None
    path: str = ""
    code: str = ""
    source: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the keys are a stable interface."""
        return {
            "severity": str(self.severity),
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "path": self.path,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "end_column": self.end_column,
        }


def shown(value: object, limit: int = 60) -> str:
    """`value` in backticks, safe for a terminal and cut to `limit` characters."""
    text = "".join(_safe(char) for char in str(value)[: limit + 1])
    if len(text) > limit:
        text = text[: limit - len(_CUT)] + _CUT
    return f"`{text}`"


def render(diagnostic: Diagnostic, *, colour: bool = False) -> str:
    """The compiler-like text form, without a final newline."""
    paint = _paint if colour else _plain
    severity = str(diagnostic.severity)
    head = paint(severity, severity) + paint("bold", f": {diagnostic.message}")
    if diagnostic.file is None:
        return head + (f"\n  hint: {diagnostic.hint}" if diagnostic.hint else "")
    number = str(diagnostic.line or "")
    margin = " " * max(len(number), 1)
    place = ":".join(
        str(part)
        for part in (diagnostic.file, diagnostic.line, diagnostic.column)
        if part is not None
    )
    lines = [head, f"{margin}{paint('dim', '-->')} {place}"]
    bar = paint("dim", "|")
    if diagnostic.source is not None and diagnostic.column is not None:
        text, start, width = _excerpt(diagnostic.source, diagnostic.column, diagnostic.end_column)
        caret = paint(severity, "^" * width)
        lines += [
            f"{margin} {bar}",
            f"{paint('dim', number)} {bar} {text}".rstrip(),
            f"{margin} {bar} {' ' * start}{caret}",
        ]
    if diagnostic.hint:
        lines.append(f"{margin} {paint('dim', '=')} hint: {diagnostic.hint}")
    return "\n".join(lines)


def render_text(diagnostics: Iterable[Diagnostic], *, colour: bool = False) -> str:
    """All of them in order, one empty line between."""
    return "\n\n".join(render(diagnostic, colour=colour) for diagnostic in diagnostics)


def in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """By file, line and column, each finding once; those without a place come last."""
    unique = dict.fromkeys(diagnostics)
    return tuple(
        sorted(unique, key=lambda d: (d.file is None, d.file or "", d.line or 0, d.column or 0))
    )


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """`2 errors, 1 warning`; empty when there is neither."""
    found = [diagnostic.severity for diagnostic in diagnostics]
    parts = []
    for severity in (Severity.ERROR, Severity.WARNING):
        count = found.count(severity)
        if count:
            parts.append(f"{count} {severity}{'s' if count > 1 else ''}")
    return ", ".join(parts)


def _excerpt(source: str, column: int, end_column: int | None) -> tuple[str, int, int]:
    """The line as a terminal shows it, the cells before the caret, the cells under it."""
    first = min(max(column - 1, 0), len(source))
    last = max(min(end_column - 1 if end_column else first + 1, len(source)), first)
    before, marked, after = source[:first], source[first:last], source[last:]
    before, marked, after = _display(before), _display(marked), _display(after)
    if _cells(before) + _cells(marked) + _cells(after) > WIDTH:
        room = WIDTH // 2
        if len(before) > room:
            before = _CUT + before[-(room - len(_CUT)) :]
        if len(marked) > room:
            marked, after = marked[: room - len(_CUT)], _CUT
        rest = max(WIDTH - _cells(before) - _cells(marked), len(_CUT))
        if len(after) > rest:
            after = after[: rest - len(_CUT)] + _CUT
    return before + marked + after, _cells(before), max(_cells(marked), 1)


def _display(text: str) -> str:
    return "".join(TAB if char == "\t" else _safe(char) for char in text)


def _safe(char: str) -> str:
    """`char`, or a stand-in for what would move the cursor, hide, or turn the text around."""
    if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return "\N{REPLACEMENT CHARACTER}"
    return char


def _cells(text: str) -> int:
    """Terminal columns that `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_cell(char) for char in text)


def _cell(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _plain(style: str, text: str) -> str:  # noqa: ARG001 -- the shape of `_paint`
    return text


def _paint(style: str, text: str) -> str:
    return f"{_BOLD if style == 'bold' else _COLOURS[style]}{text}{_RESET}"


def dotted(path: Iterable[str | int]) -> str:
    """`('nodes', 2, 'mac')` as `nodes[2].mac`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return re.sub(r"[^ -~]", "?", text)
