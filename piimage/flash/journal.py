"""The block that says what a half-written card is: on the card itself, where no machine looks for a partition.

It lies at byte 4096, inside the head, which is written last: a finished card has none, and an unfinished one
has this and no partition table.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass

from piimage.flash.medium import buffer

OFFSET = 4096
SIZE = 4096
_MAGIC = b"piimage-flash 1\n"
_DIGEST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """An unfinished write: of what (`fingerprint`, `title`), in which `phase`, and up to which byte it is safe.

    `done` counts bytes of the image: everything needed below it was written and flushed.
    """

    fingerprint: str
    title: str
    phase: str
    done: int = 0


def encode(journal: Journal) -> bytes:
    """The block: a line of magic, JSON, zeros, and the SHA-256 of all that at its end."""
    text = _MAGIC + json.dumps(asdict(journal), sort_keys=True).encode()
    body = text[: SIZE - _DIGEST].ljust(SIZE - _DIGEST, b"\0")
    return body + hashlib.sha256(body).digest()


def decode(block: bytes) -> Journal | None:
    """The journal in a block; None for anything else, a torn one included."""
    body, digest = block[: SIZE - _DIGEST], block[SIZE - _DIGEST :]
    if not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    try:
        found = Journal(**json.loads(body[len(_MAGIC) :].rstrip(b"\0")))
    except (ValueError, TypeError):
        return None
    return found if _sound(found) else None


def _sound(found: Journal) -> bool:
    """Whether the types are right: what a card holds may come from anybody."""
    values = asdict(found)
    done = values.pop("done")
    return type(done) is int and done >= 0 and all(isinstance(v, str) for v in values.values())


def read_journal(fd: int) -> Journal | None:
    """The journal of an open card or image; None if there is none. Raises `OSError`."""
    block = buffer(SIZE)
    count = os.preadv(fd, [memoryview(block)[:SIZE]], OFFSET)
    return decode(block[:SIZE]) if count == SIZE else None
