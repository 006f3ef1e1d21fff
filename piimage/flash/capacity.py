"""Does the card have the room that it says? Fakes wrap around, or swallow what lies beyond their end.

Marked blocks are written to places all over the card, at the same distance from many powers and fractions of its
size: on a card that wraps, they fall on each other. After some megabytes of other writes, which drive them out of
the card's own cache, they are read back in another order. Method: f3probe.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from piimage.errors import VerifyError
from piimage.flash.medium import CHUNK, buffer
from piimage.flash.ranges import BLOCK, Range, common, pieces, without
from piimage.progress import human

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.flash.medium import Medium

_MAGIC = b"piimage-probe 1\n"
#: Where the first mark lies, inside the head; all others lie this far beyond a round place.
_SHIFT = 64 << 10
#: But for that one, no mark lies in a card's head.
_HEAD = 1 << 20
_FRACTIONS = 16
_FILLER = 8 << 20
_LATE = 64


def marks(size: int, keep: Sequence[Range] = ()) -> list[int]:
    """Byte offsets of the marks on a card of `size` bytes, none of them in `keep`; in order."""
    places = {_SHIFT, size // BLOCK * BLOCK - BLOCK}
    power = _HEAD
    while power < size:
        places.add(power + _SHIFT)
        power <<= 1
    places |= {size * n // _FRACTIONS // BLOCK * BLOCK + _SHIFT for n in range(1, _FRACTIONS)}
    fitting = sorted(p for p in places if p == _SHIFT or _HEAD <= p <= size - BLOCK)
    return [
        place for place in fitting if place <= size - BLOCK and not common([(place, BLOCK)], keep)
    ]


def probe(medium: Medium, *, keep: Sequence[Range], fill: Sequence[Range]) -> None:
    """Raise `VerifyError` for a card that has less room than it says.

    Nothing in `keep` is touched. `fill` is where the other writes go, as far as it reaches.
    """
    places = marks(medium.size, keep)
    seed = random.randbytes(16)  # noqa: S311 -- tells this probe's marks from an earlier one's
    block = memoryview(buffer(BLOCK))[:BLOCK]
    for place in places:
        block[:] = _mark(seed, place)
        medium.write(place, block)
    _fill(medium, without(fill, [(place, BLOCK) for place in places]))
    medium.flush()
    medium.drop_caches()
    found = {}
    for place in random.sample(places, len(places)):
        medium.read_into(place, block)
        found[place] = bytes(block)
    lost = [place for place in places if found[place] != _mark(seed, place)]
    if places[:1] == [_SHIFT]:
        medium.zero(_SHIFT, BLOCK)  # the head is blank again, for `strays`
    if lost:
        raise _fake(medium.size, places, lost, {p: _marked(seed, found[p]) for p in lost})


def late_marks(size: int, keep: Sequence[Range]) -> list[int]:
    """Places over the last part of the card, close together; see `scatter`."""
    places = {(size - size * n // _LATE // 16) // BLOCK * BLOCK - BLOCK for n in range(_LATE)}
    return [place for place in sorted(places) if place > 0 and not common([(place, BLOCK)], keep)]


def scatter(medium: Medium, *, keep: Sequence[Range]) -> None:
    """Marks over the last sixteenth of the card, after the body.

    A card that wraps around at an odd place near its end, which `probe` does not see, takes them into its beginning:
    into what was written, where reading back finds them, or into the head, which `strays` looks into.
    """
    block = memoryview(buffer(BLOCK))[:BLOCK]
    for place in late_marks(medium.size, keep):
        block[:] = _mark(b"late", place)
        medium.write(place, block)


def strays(medium: Medium, head: Sequence[Range]) -> None:
    """Raise `VerifyError` if something is in the head, which was zeroed: it was written elsewhere."""
    view = memoryview(buffer(CHUNK))
    for start, length in pieces(head, CHUNK):
        medium.read_into(start, view[:length])
        if any(view[:length]):
            raise VerifyError(
                "what is written near the end of the card comes back at its beginning",
                hint="it has less room than it says: a fake, or broken; nothing on it can be trusted",
            )


def _fill(medium: Medium, ranges: Sequence[Range]) -> None:
    noise = memoryview(buffer(CHUNK))
    noise[:] = random.randbytes(CHUNK // 64) * 64  # noqa: S311 -- noise
    left = _FILLER
    for start, length in pieces(ranges, CHUNK):
        if left <= 0:
            break
        medium.write(start, noise[:length])
        left -= length


def _mark(seed: bytes, place: int) -> bytes:
    text = _MAGIC + seed + place.to_bytes(8, "little")
    return (text + random.Random(text).randbytes(BLOCK))[:BLOCK]  # noqa: S311 -- a pattern, no secret


def _marked(seed: bytes, block: bytes) -> int | None:
    """The place that a block was written for, if it is a mark of ours."""
    lead = _MAGIC + seed
    return int.from_bytes(block[len(lead) :][:8], "little") if block.startswith(lead) else None


def _fake(
    size: int, places: Sequence[int], lost: Sequence[int], found: dict[int, int | None]
) -> VerifyError:
    steps = [abs(other - place) for place, other in found.items() if other is not None]
    if steps:
        room, how = min(steps), "what is written beyond comes back at its beginning"
    else:
        good = [place for place in places if place < lost[0]]
        room, how = (good[-1] if good else 0), "what is written beyond is lost"
    return VerifyError(
        f"the card says that it has {human(size)}, and has about {human(room)}: {how}",
        hint="it is a fake, or broken: give it back; nothing on it can be trusted",
    )
