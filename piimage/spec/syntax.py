"""Our own sentence for each way in which text is no YAML; the parser's wording is not for users."""

from __future__ import annotations

import re
from typing import Any

_QUOTE = "put the text in quotes"
_INDENT = "keep the keys of one mapping in one column"

#: (what the parser's `context: problem` matches, our sentence, our hint); the first match counts.
_SENTENCES: tuple[tuple[str, str, str | None], ...] = (
    (r"\\t' that cannot start", "a tab stands where YAML wants spaces", "indent with spaces"),
    (r"character '([@`%])' that cannot", "text cannot start with `{0}`", _QUOTE),
    (r"character '(.)' that cannot", "`{0}` cannot stand here", _QUOTE),
    (
        r"mapping values are not allowed",
        "a second `:` on one line, or a line indented differently from the one above",
        f"{_INDENT}; put text that holds `: ` in quotes",
    ),
    (r"sequence entries are not allowed", "a list cannot start here", "start it on a new line"),
    (r"quoted scalar: .*end of stream", "a quote is opened here and never closed", None),
    (
        r"unknown escape character '(.)'",
        "`\\{0}` is no escape in a double-quoted text",
        "use 'single quotes'",
    ),
    (r"flow sequence", "a `[` list is not closed, or lacks a comma", "write `[one, two]`"),
    (
        r"flow mapping",
        "a `{{` mapping is not closed, or lacks a comma",
        "write `{{key: value, key: value}}`",
    ),
    (
        r"block collection",
        "a list entry is followed by something that is none",
        "start each entry with `- `",
    ),
    (
        r"block mapping",
        "this does not continue the mapping above",
        f"{_INDENT}; quote text with special signs",
    ),
    (
        r"could not find expected ':'",
        "a line is neither `key: value` nor a list entry",
        "add the `:`",
    ),
    (
        r"block scalar",
        "a `|` or `>` text is malformed",
        "start the text on the next line, indented",
    ),
    (r"tag", "tags (`!name`) are not used here", "remove the tag"),
    (
        r"anchor|alias",
        "an anchor or alias has no valid name",
        "quote text that starts with `&` or `*`",
    ),
    (r"directive|version", "directives (`%...`) are not used here", "remove the line"),
    (r"node content", "a value is missing here, or `{got}` is one too many", None),
)


def sentence(error: Any, text: str) -> tuple[str, str | None, int, int]:  # noqa: ANN401 -- the parser's error classes share no typed base with marks
    """Message, hint, line and column (from 0) for an error of the YAML parser."""
    problem = str(getattr(error, "problem", None) or error)
    context = str(getattr(error, "context", None) or "")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if "end of stream" in problem and getattr(error, "context_mark", None) is not None:
        mark = error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (text.count("\n"), 0)
    got = re.search(r"but (?:got|found) '(.*)'", problem)
    for pattern, message, hint in _SENTENCES:
        match = re.search(pattern, f"{context}: {problem}")
        if match is not None:
            words = message.format(*match.groups(), got=got.group(1) if got else "")
            return words, hint.format() if hint else None, line, column
    return "this is not valid YAML", "look at the indentation and at unclosed quotes", line, column
