"""The label of a card: what a person who holds it may read about it, `piimage.json` on the firmware partition."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

NAME = "piimage.json"
_LONGEST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CardLabel:
    """Which node of which cluster a card is; `build` and `variant` are ids. Nothing in it is secret."""

    cluster: str
    node: str
    number: int
    build: str
    variant: str


def encode(label: CardLabel) -> bytes:
    """The content of the file."""
    return json.dumps(asdict(label), indent=1, sort_keys=True).encode() + b"\n"


def decode(text: bytes) -> CardLabel | None:
    """What a file says, which may come from anybody; None if it is no label."""
    try:
        document = json.loads(text)
        label = CardLabel(**{name: document[name] for name in CardLabel.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return None
    values = asdict(label)
    number = values.pop("number")
    words = all(
        isinstance(v, str) and v.isprintable() and 0 < len(v) < _LONGEST for v in values.values()
    )
    return label if words and type(number) is int else None
