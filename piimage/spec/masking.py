"""Keep secrets out of what is shown: which values are secret, how a line is shown without them."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from piimage.spec.place import FieldPath, Span

#: A key that sounds like a secret makes its value one, wherever and however misspelt it stands.
_SECRET_KEY = re.compile(r"(?i)ps+k|pass?w?|pswd|pwd|secret|hash|token|phrase")
_SECRET_WORDS = ("psk", "password", "passphrase", "hash", "secret")
_CLOSE = 0.65
#: Fields whose names come close to one of these and hold no secret.
_HARMLESS = frozenset({"password_authentication", "path", "shares", "server", "servers"})
#: These say where a secret is, or that there is none.
_REFERENCE = re.compile(r"(env:|file:|locked\Z)")
#: For lines that could not be parsed, and for comments.
_LOOSE = re.compile(
    r"(?i)(?:ps+k|(?!password_authentication)pass?w\w*|passphrase|hash|secret)[\"']?\s*[:=]\s*"
    r"(?![\"']?(?:env:|file:|locked)|[{\[*&*])"
    r"(\"[^\"]*\"?|'[^']*'?|[^\s,}#][^,}#]*)"
)


@lru_cache(maxsize=1024)
def sounds_secret(key: str) -> bool:
    """Whether a field of this name, perhaps misspelt, holds a secret."""
    if key in _HARMLESS:
        return False
    if _SECRET_KEY.search(key):
        return True
    return bool(get_close_matches(key.lower(), _SECRET_WORDS, 1, _CLOSE))


def is_secret(path: FieldPath, value: object = None) -> bool:
    """Whether the scalar `value` at `path` may be a secret, to be shown to nobody."""
    if isinstance(value, str) and _REFERENCE.match(value):
        return False
    return any(isinstance(part, str) and sounds_secret(part) for part in path)


def mask(text: str, line: int, secrets: Iterable[Span]) -> str:
    """`text`, the file's line number `line` (from 0), with each secret replaced by as many `*`."""
    for secret in secrets:
        if secret.line <= line <= secret.end_line:
            left = secret.column if line == secret.line else 0
            right = secret.end_column if line == secret.end_line else len(text)
            text = text[:left] + "*" * len(text[left:right]) + text[right:]
    return _LOOSE.sub(
        lambda found: found.group()[: found.start(1) - found.start()] + "*" * len(found.group(1)),
        text,
    )
