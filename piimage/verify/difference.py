"""Where a text differs from the one that was promised, in few words and without telling secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.disk.slots import PADDING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIMIT = 1 << 18
#: Of a line that is longer, the words that differ are told, and of these so many.
_SHORT, _WORDS = 100, 4
#: What a line sets, before a colon: keys hold no colon, nor does base64.
_KEY = re.compile(r"\s*(?:- )?([A-Za-z_][\w.-]{0,31}):")


def difference(due: bytes, found: bytes, *, shown: bool) -> str:
    """The first line of `found` that is another than in `due`, and how many more there are; "" where that says nothing.

    Lines are told only when `shown`; else their number, and what the promised one sets.
    """
    if max(len(due), len(found)) > _LIMIT or b"\0" in due + found:
        return ""
    one, two = (
        data.rstrip(PADDING).decode(errors="surrogateescape").split("\n") for data in (due, found)
    )
    if one == two:
        return "the ends of the two differ" if due != found else ""
    at = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
    at = min(len(one), len(two)) if at is None else at
    rest = min(len(one), len(two)) - at
    same = next((n for n in range(rest) if one[-1 - n] != two[-1 - n]), rest)
    old, new = one[at : len(one) - same], two[at : len(two) - same]
    told = _shown(at + 1, old, new) if shown else _hidden(at + 1, old, new)
    more = max(len(old), len(new)) - 1
    return told + (f", and {more} more line{'s' * (more != 1)}" if more else "")


def _shown(number: int, old: Sequence[str], new: Sequence[str]) -> str:
    if not new:
        return f"line {number}, `{_cut(old[0])}`, is missing"
    if not old:
        return f"line {number}, `{_cut(new[0])}`, is too much"
    if max(len(old[0]), len(new[0])) <= _SHORT:
        return f"line {number} is `{new[0]}`, not `{old[0]}`"
    lost, gained = (
        _without(old[0].split(), new[0].split()),
        _without(new[0].split(), old[0].split()),
    )
    words = [f"has lost `{_cut(word)}`" for word in lost[:_WORDS]]
    words += [f"has `{_cut(word)}` too much" for word in gained[:_WORDS]]
    return f"line {number} {' and '.join(words) or 'has its words in another order'}"


def _hidden(number: int, old: Sequence[str], new: Sequence[str]) -> str:
    key = _KEY.match(old[0]) if old else None
    what = f"line {number}" + (f" (`{key[1]}`)" if key else "")
    return f"{what} is missing" if not new else f"{what} is {'another' if old else 'too much'}"


def _without(words: Sequence[str], taken: Sequence[str]) -> list[str]:
    """`words` less one of the same for each of `taken`."""
    left = list(taken)
    kept = []
    for word in words:
        if word in left:
            left.remove(word)
        else:
            kept.append(word)
    return kept


def _cut(words: str) -> str:
    return words if len(words) <= _SHORT else f"{words[:_SHORT]}..."
