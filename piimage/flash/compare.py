"""Reading a card and comparing it with what should be there; mending what is not, and saying what that means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.disk.window import joined
from piimage.errors import VerifyError
from piimage.flash.events import Event
from piimage.flash.medium import CHUNK
from piimage.flash.ranges import BLOCK, Range, amount, pieces

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Sequence

    from piimage.flash.lanes import Lanes
    from piimage.flash.medium import Medium
    from piimage.flash.payload import Payload, Reader

#: Compared at once: a slice of memory is a copy, so not the whole chunk.
_STEP = 256 << 10
_TRIES = 2
#: More than this is no spot that can be mended.
MENDABLE = 16 << 20


class Comparison:
    """A card and what should be on it."""

    def __init__(
        self,
        medium: Medium,
        payload: Payload,
        reader: Reader,
        lanes: Lanes,
        notify: Callable[[Event], None],
    ) -> None:
        self._medium, self._payload, self._reader = medium, payload, reader
        self._lanes, self._notify = lanes, notify

    def differing(
        self,
        ranges: Sequence[Range],
        *,
        unit: int = BLOCK,
        done: Callable[[int], None] = lambda _: None,
    ) -> list[Range]:
        """What of `ranges` is other on the card, in pieces of `unit` bytes, in order and joined."""
        found: list[Range] = []

        def look(piece: Range, buffers: tuple[mmap.mmap, ...]) -> None:
            (offset, length), (card, source) = piece, buffers
            with self._lanes.turn:
                self._medium.read_into(offset, memoryview(card)[:length])
            if self._reader.proves(offset, memoryview(card)[:length]):
                return
            self._reader.read_into(offset, memoryview(source)[:length])
            for at in range(0, length, _STEP):
                end = min(at + _STEP, length)
                if card[at:end] != source[at:end]:
                    found.extend(_blocks(card, source, offset, (at, end), unit))

        self._lanes.run(pieces(ranges, CHUNK), look, lambda piece: done(piece[1]))
        return joined(found)

    def write(self, ranges: Sequence[Range], done: Callable[[int], None] = lambda _: None) -> None:
        """Write what belongs into `ranges`."""

        def copy(piece: Range, buffers: tuple[mmap.mmap, ...]) -> None:
            offset, length = piece
            view = memoryview(buffers[0])[:length]
            with self._reader.held(offset, view) as content, self._lanes.turn:
                self._medium.write(offset, content)

        self._lanes.run(pieces(ranges, CHUNK), copy, lambda piece: done(piece[1]))

    def verify(self, ranges: Sequence[Range], done: Callable[[int], None] = lambda _: None) -> int:
        """Read `ranges` back; what differs is written again, at most twice. Returns bytes written again.

        Raises `VerifyError` that names the first place and what it means.
        """
        self._lanes.once(self._medium.drop_caches)
        bad = self.differing(ranges, done=done)
        again, tries = 0, 0
        while bad and tries < _TRIES and amount(bad) <= MENDABLE:
            tries += 1
            data = {"bytes": amount(bad), "places": len(bad), "first": bad[0][0]}
            self._notify(Event("rewrite", {**data, "where": self._payload.place(bad[0][0])}))
            self.write(bad)
            self._lanes.once(self._medium.flush)
            self._lanes.once(self._medium.drop_caches)
            again += amount(bad)
            bad = self.differing(bad)
        if bad:
            raise self._mismatch(bad, ranges, tries)
        return again

    def _mismatch(self, bad: Sequence[Range], ranges: Sequence[Range], tries: int) -> VerifyError:
        (start, length), count = bad[0], len(bad)
        size = f"{amount(bad)} bytes in {count} place{'s' * (count != 1)}"
        also = f", also after writing them {tries + 1} times" if tries else ""
        return VerifyError(
            f"the card does not hold what was written: {size} differ, the first at byte {start} to "
            f"{start + length} ({self._payload.place(start)}){also}",
            hint=_meaning(bad, ranges),
        )


def _blocks(card: mmap.mmap, source: mmap.mmap, offset: int, span: Range, unit: int) -> list[Range]:
    """Pieces of `unit` bytes between the two ends of `span` that differ, as ranges of the card."""
    start, end = span
    return [
        (offset + at, min(unit, end - at))
        for at in range(start, end, unit)
        if card[at : min(at + unit, end)] != source[at : min(at + unit, end)]
    ]


def _meaning(bad: Sequence[Range], ranges: Sequence[Range]) -> str:
    """What a person should think of this card."""
    share = amount(bad) / max(1, amount(ranges))
    if share > 0.05:  # noqa: PLR2004 -- far more than wear: whole regions are lost
        return (
            "so much is lost that the card has less room than it says (a fake), or its reader is broken: "
            "try another reader, then throw the card away"
        )
    return "the card is worn out or its reader is broken: try another reader, then another card"
