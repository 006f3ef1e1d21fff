"""Our own sentence for each way in which text is no YAML; the parser's wording is not for users.

libyaml and PyYAML's own parser word the same mistakes differently; the patterns fit both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.report import shown

if TYPE_CHECKING:
    from yaml.error import MarkedYAMLError

_QUOTE = "put the text in quotes"
_INDENT = "keep the keys of one mapping in one column"
_TAB = ("a tab stands where YAML wants spaces", "indent with spaces")
_TAGS = (
    "tags (`!name`) are not used here",
    "remove the tag, or put text that starts with `!` in quotes",
)

#: (what the parser's `context: problem` matches, our sentence, our hint); the first match counts.
_SENTENCES: tuple[tuple[str, str, str | None], ...] = (
    (r"tab character", *_TAB),
    (
        r"mapping values are not allowed",
        "a second `:` on one line, or a line indented differently from the one above",
        f"{_INDENT}; put text that holds `: ` in quotes",
    ),
    (r"sequence entries are not allowed", "a list cannot start here", "start it on a new line"),
    (r"quoted scalar: .*end of stream", "a quote is opened here and never closed", None),
    (
        r"quoted scalar: ",
        "an escape (`\\`) in double quotes that YAML does not have",
        "use 'single quotes'",
    ),
    (r"flow sequence", "a `[` list is not closed, or lacks a comma", "write `[one, two]`"),
    (
        r"flow mapping",
        "a `{` mapping is not closed, or lacks a comma",
        "write `{key: value, key: value}`",
    ),
    (
        r"block collection",
        "a list entry is followed by something that is none",
        "start each entry with `- `, in one column",
    ),
    (
        r"block mapping",
        "this does not continue the mapping above",
        f"{_INDENT}; put text with special signs in quotes",
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
    (r"tag", *_TAGS),
    (
        r"anchor|alias",
        "an anchor or alias has no valid name",
        "put text that starts with `&` or `*` in quotes",
    ),
    (r"directive|version", "directives (`%...`) are not used here", "remove the line"),
    (r"node content", "a value is missing here, or a bracket is one too many", None),
)
#: The place to show is where these began, not where the parser gave up.
_SHOW_START = re.compile(r"end of stream|flow sequence|flow mapping|simple key")


def sentence(error: MarkedYAMLError, text: str) -> tuple[str, str | None, int, int]:
    """Message, hint, line and column (from 0) for an error of the YAML parser."""
    words = f"{error.context or ''}: {error.problem or ''}"
    mark = error.problem_mark or error.context_mark
    if error.context_mark is not None and _SHOW_START.search(words):
        mark = error.context_mark
    if mark is None:
        return "this is not valid YAML", None, 0, 0
    line = [*re.split(r"\r\n|\n|\r", text), ""][mark.line]
    if "expected ':'" in words and re.match(r"\s*(- )?[\w-]+:\S", line):
        return "a space is missing behind the `:`", "write `key: value`", mark.line, mark.column
    if "cannot start any token" in words:
        char = line[mark.column :][:1]
        start = _TAB if char == "\t" else (f"text cannot start with {shown(char)}", _QUOTE)
        return *start, mark.line, mark.column
    for pattern, message, hint in _SENTENCES:
        if re.search(pattern, words):
            return message, hint, mark.line, mark.column
    hint = "look at the indentation and at unclosed quotes"
    return "this is not valid YAML", hint, mark.line, mark.column
