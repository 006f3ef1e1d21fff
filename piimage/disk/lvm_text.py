"""LVM2's metadata as text: sections in braces, settings, lists (lvm2, lib/config/config.c; lvm(8) vgcfgbackup)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Value = int | float | str | list["Value"] | dict[str, "Value"]

_TOKEN = re.compile(
    r"""(?P<gap>[\s,\0]+|\#[^\n]*)|(?P<sign>[{}=\[\]])|"(?P<string>(?:[^"\\]|\\.)*)"|"""
    r"""(?P<number>-?\d+(?:\.\d+)?)(?![\w.+-])|(?P<word>[A-Za-z0-9_.+/-]+)""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_MAX_DEPTH = 16


def parse(text: str) -> dict[str, Value]:
    """The sections and settings of `text`; raises `ValueError` for anything else."""
    tokens = _tokens(text)
    found = _section(tokens, 0, closed=False)
    if next(tokens, None) is not None:
        raise ValueError("a brace too many")
    return found


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or not match.end() > at:
            raise ValueError(f"not understood from character {at} on")
        at = match.end()
        kind = match.lastgroup or ""
        if kind != "gap":
            yield kind, match[kind]


def _section(tokens: Iterator[tuple[str, str]], depth: int, *, closed: bool) -> dict[str, Value]:
    """Settings up to the closing brace, or with `closed` False to the end."""
    if depth > _MAX_DEPTH:
        raise ValueError("sections lie too deep in each other")
    found: dict[str, Value] = {}
    for kind, word in tokens:
        if (kind, word) == ("sign", "}"):
            if closed:
                return found
            raise ValueError("a brace too many")
        if kind == "sign" or word in found:
            raise ValueError(f"`{word[:40]}` is out of place")
        follows = next(tokens, ("", ""))
        if follows == ("sign", "{"):
            found[word] = _section(tokens, depth + 1, closed=True)
        elif follows == ("sign", "="):
            found[word] = _value(tokens, next(tokens, ("", "")), depth)
        else:
            raise ValueError(f"`{word[:40]}` has neither a value nor braces")
    if closed:
        raise ValueError("a section does not end")
    return found


def _value(tokens: Iterator[tuple[str, str]], first: tuple[str, str], depth: int) -> Value:
    kind, word = first
    if kind == "string":
        return _ESCAPE.sub(r"\1", word)
    if kind == "number":
        return float(word) if "." in word else int(word)
    if (kind, word) == ("sign", "[") and depth <= _MAX_DEPTH:
        items: list[Value] = []
        for token in tokens:
            if token == ("sign", "]"):
                return items
            items.append(_value(tokens, token, depth + 1))
    raise ValueError("a setting has no value")
