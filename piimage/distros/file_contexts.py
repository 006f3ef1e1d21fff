"""SELinux labels: what a policy says of a path, as matchpathcon(8) would, from the image's own file_contexts.

A line is `REGULAR-EXPRESSION [TYPE] CONTEXT` (selabel_file(5)). Of several that match the last one counts, and one
without special characters before any other (libselinux, label_file.c); `<<none>>` leaves a file without a label.
Pairs of `file_contexts.subs` and `.subs_dist` say which directory is labelled like another.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from piimage.facts import Facts

_CONFIG = "/etc/selinux/config"
_SETTING = re.compile(r"^[ \t]*(SELINUX|SELINUXTYPE)[ \t]*=[ \t]*(\w+)", re.MULTILINE)
#: In the order in which libselinux reads them.
FILES = ("file_contexts", "file_contexts.homedirs", "file_contexts.local")
SUBSTITUTES = ("file_contexts.subs", "file_contexts.subs_dist")
_KINDS = {"--": "file", "-d": "dir", "-l": "link"}
#: What makes of a text an expression (libselinux, label_file.h, `spec_hasMetaChars`).
_SPECIAL = re.compile(r"[.^$?*+|\[({]")
_REPEATS = "?*{"
#: Inside of brackets (pcre2pattern(3)).
_CLASS = re.compile(r"\[:(\w+):\]")
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "space": r"\s",
    "upper": "A-Z",
    "word": r"\w",
    "xdigit": "0-9A-Fa-f",
}
_NONE = "<<none>>"


@dataclass(frozen=True, slots=True)
class _Line:
    """`prefix` is what every path that matches begins with; `kind` None stands for every kind."""

    prefix: str
    pattern: str
    kind: str | None
    context: str
    literal: bool


@dataclass(frozen=True, slots=True)
class Contexts:
    """A policy's labels."""

    lines: tuple[_Line, ...] = field(repr=False)
    substitutes: tuple[tuple[tuple[str, str], ...], ...] = ()

    def label(self, path: str, kind: str) -> str | None:
        """The label of what is at `path`; `kind` is `file`, `dir`, `link` or `other`. None for none."""
        for pairs in self.substitutes:
            path = _substituted(path, pairs)
        for line in self.lines:
            if line.kind not in (None, kind) or not path.startswith(line.prefix):
                continue
            if _matches(line, path):
                return None if line.context == _NONE else line.context
        return None


def contexts(facts: Facts) -> Contexts | None:
    """The labels that the base's SELinux wants, or None where it has none or is switched off."""
    settings = dict(_SETTING.findall(facts.text(_CONFIG)))
    if settings.get("SELINUX") not in ("enforcing", "permissive"):
        return None
    folder = f"/etc/selinux/{settings.get('SELINUXTYPE', 'targeted')}/contexts/files"
    texts = tuple(facts.text(f"{folder}/{name}") for name in FILES)
    if not texts[0]:
        return None
    return parse(texts, tuple(facts.text(f"{folder}/{name}") for name in SUBSTITUTES))


@lru_cache(maxsize=4)
def parse(texts: tuple[str, ...], substitutes: tuple[str, ...] = ()) -> Contexts:
    """Contexts of the texts of file_contexts and its sisters; lines that are none are left out."""
    lines = [found for text in texts for raw in text.splitlines() if (found := _line(raw))]
    lines.reverse()
    literal = [line for line in lines if line.literal]
    rest = [line for line in lines if not line.literal]
    return Contexts((*literal, *rest), tuple(_pairs(text) for text in substitutes))


def _line(raw: str) -> _Line | None:
    words = raw.split()
    if not words or words[0].startswith("#") or len(words) not in (2, 3):
        return None
    kind = None
    if len(words) == 3:  # noqa: PLR2004 -- with a type
        kind = _KINDS.get(words[1], "other")
    pattern = words[0]
    literal = not _SPECIAL.search(re.sub(r"\\.", "", pattern))
    return _Line(_prefix(pattern), pattern, kind, words[-1], literal)


def _prefix(pattern: str) -> str:
    """What is sure to be at the beginning of what the pattern matches."""
    if "|" in re.sub(r"\((?:[^()]|\([^()]*\))*\)", "", pattern):
        return ""
    found, at = "", 0
    while at < len(pattern):
        char, step = pattern[at], 1
        if char == "\\" and at + 1 < len(pattern) and not pattern[at + 1].isalnum():
            char, step = pattern[at + 1], 2
        elif char == "\\" or _SPECIAL.match(char):
            break
        if pattern[at + step : at + step + 1] in tuple(_REPEATS):
            break
        found, at = found + char, at + step
    return found


def _matches(line: _Line, path: str) -> bool:
    if line.literal:
        return line.prefix == path
    expression = _compiled(line.pattern)
    return expression is not None and expression.fullmatch(path) is not None


@lru_cache(maxsize=16384)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """PCRE's expression as Python's; None for one that is broken, as libselinux leaves it out."""
    pattern = _CLASS.sub(lambda match: _CLASSES.get(match[1], match[0]), pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # `[[` means what it meant
        try:
            return re.compile(pattern, re.DOTALL | re.ASCII)
        except re.error:
            return None


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    found = [tuple(line.split()) for line in text.splitlines() if not line.startswith("#")]
    return tuple((pair[0], pair[1]) for pair in reversed(found) if len(pair) == 2)  # noqa: PLR2004 -- a pair


def _substituted(path: str, pairs: Iterable[tuple[str, str]]) -> str:
    for source, target in pairs:
        if path == source or path.startswith(f"{source}/"):
            return target + path[len(source) :]
    return path
