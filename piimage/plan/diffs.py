"""Changes as unified diffs for people, without what the base itself keeps from its users.

A Delta holds no secret and stand-ins take the place of those in stamps; what is masked here are secrets of the base:
password hashes, private keys, passphrases.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piimage.facts import FileFact
    from piimage.plan.changes import Change

MASK = "***"
#: name, hash, rest: shadow(5) and gshadow(5).
_SHADOW = re.compile(r"^([^:\n]*):([^:\n]+):", re.MULTILINE)
_SHADOW_FILES = ("/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/gshadow-")
_LOCKED = re.compile(r"[!*]*")
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]*PRIVATE KEY-----\n).*?(-----END [A-Z ]*PRIVATE KEY-----)", re.DOTALL
)
_PASSPHRASE = re.compile(
    r"(?im)^([ \t\-]*[\w.-]*(?:psk|pass(?:word|phrase|wd)?|secret|token)[\w.-]*[\"']?[ \t]*[:=][ \t]*)(?!<)(\S.*)$"
)
#: The bit that lets everybody read a file; what everybody can read is no secret of the base.
_PUBLIC = 0o004


def diff(change: Change) -> list[str]:
    """Lines of a unified diff of what a file or link holds, without its heading; empty when that stays the same.

    Content that is not text has one line that says so.
    """
    before, after = _lines(change, change.before), _lines(change, change.after)
    if before == after:
        return []
    lines = difflib.unified_diff(before, after, lineterm="", n=2)
    return list(lines)[2:]


def _lines(change: Change, fact: FileFact | None) -> list[str]:
    if fact is None or fact.kind == "dir":
        return []
    if fact.kind == "link":
        return [f"-> {fact.target}"]
    if fact.content is None:
        return []
    try:
        text = fact.content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if change.slot:
        text = text.rstrip("\n") + "\n"  # what a slot holds is followed by padding
    if "\0" in text:
        return [f"({len(fact.content)} bytes that are not text)"]
    lines = _masked(change.path, text, fact.mode).split("\n")
    if lines[-1]:
        lines.append("\\ no newline at the end")
    else:
        lines.pop()
    return [
        "".join(char if char.isprintable() or char == "\t" else "?" for char in x) for x in lines
    ]


def _masked(path: str, text: str, mode: int) -> str:
    """The text without the secrets that it may hold."""
    text = _PRIVATE_KEY.sub(rf"\1{MASK}\n\2", text)
    if path in _SHADOW_FILES:
        return _SHADOW.sub(_shadow, text)
    return text if mode & _PUBLIC else _PASSPHRASE.sub(rf"\g<1>{MASK}", text)


def _shadow(found: re.Match[str]) -> str:
    """A line of shadow(5): what locks an account may be seen, a hash may not."""
    locks = _LOCKED.match(found[2])
    lock = locks[0] if locks else ""
    return f"{found[1]}:{lock}{MASK if len(lock) < len(found[2]) else ''}:"
