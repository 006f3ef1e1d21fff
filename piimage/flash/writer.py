"""One card, from the first byte to the partition table: what is broken off never looks like a whole card.

Order: head and tail zeroed, a journal, the capacity probe, the body, flush, everything read back and compared,
then the head without its first block, the first block (with the partition table), both read back.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from piimage.errors import WriteFailedError
from piimage.flash import journal
from piimage.flash.capacity import probe, scatter, strays
from piimage.flash.compare import Comparison
from piimage.flash.events import Event, Meter
from piimage.flash.journal import Journal
from piimage.flash.lanes import Lanes
from piimage.flash.medium import CHUNK, Medium, buffer
from piimage.flash.payload import BLOCK
from piimage.flash.ranges import Range, amount, common, pieces, rounded, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from threading import Event as Flag

    from piimage.flash.payload import Payload, Reader

Mode = Literal["fresh", "resume", "update"]
#: Bytes between two flushes with a note of how far the card is safe.
_STRETCH = 64 << 20
#: Differences are written in pieces of this size: cards write no less at a time.
_PIECE = 64 << 10
_TAIL = 1 << 20
#: Requests near the end are small: some readers fail at large ones (the kernel's `last_sector_bug`).
_LAST = 64 << 10
_SAMPLES = 32
#: Comparing first pays while at least this part of the card is right already: at usual rates, half of what would
#: be written twice as fast as read.
_WORTH_COMPARING = 0.31


@dataclass(frozen=True, slots=True)
class Outcome:
    """Bytes `written`, `checked` by reading back, `rewritten` after a mismatch; `unchanged`: nothing differed."""

    written: int
    checked: int
    rewritten: int
    seconds: float
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class _Todo:
    """What to write, what to read back, what of the rest of the card must stay as it is, and how far we were."""

    write: Sequence[Range]
    check: Sequence[Range]
    keep: Sequence[Range] = ()
    done: int = 0


def write_card(
    fd: int,
    size: int,
    payload: Payload,
    *,
    title: str,
    mode: Mode = "fresh",
    probed: bool = True,
    notify: Callable[[Event], None] = lambda _: None,
    limits: tuple[float, float] = (30.0, 120.0),
    delays: tuple[float, ...] = (0.1, 0.5, 2.0),
    stop: Flag | None = None,
    proof: Callable[[], None] = lambda: None,
) -> Outcome:
    """Make the card of `size` bytes behind `fd` hold the payload, and prove it.

    `title` says what it will be, for the journal. `resume` goes on after a break, if the journal is of the same
    payload; `update` compares first and writes what differs; where either cannot, it does as the next one.
    `probed` tries first whether the card has the room that it says. `limits` are seconds of silence until a
    warning and until the card is given up, `delays` the waits before an errored request is tried again.
    `stop` ends the write from another thread. `proof` is asked before the head is written: what it raises about
    the source ends the write.

    Raises `WriteFailedError`, `VerifyError`, and `KeyboardInterrupt` when told to stop; after each, and after any
    break, the card has no partition table.
    """
    if size < payload.size:
        raise WriteFailedError(
            f"the card has {size} bytes and the image {payload.size}", hint="take a larger card"
        )
    medium = Medium(
        fd,
        size,
        place=payload.place,
        tried=lambda text: notify(Event("retry", {"text": text})),
        delays=delays,
    )
    lanes = Lanes(
        medium,
        limits=limits,
        stop=stop,
        slow=lambda s: notify(Event("slow", {"seconds": round(s)})),
    )
    with payload.reading() as reader:
        writing = _Writing(medium, payload, reader, lanes=lanes, notify=notify, title=title)
        return writing.run(mode, probed=probed, proof=proof)


class _Writing:
    def __init__(
        self,
        medium: Medium,
        payload: Payload,
        reader: Reader,
        *,
        lanes: Lanes,
        notify: Callable[[Event], None],
        title: str,
    ) -> None:
        self._medium, self._payload, self._lanes = medium, payload, lanes
        self._card = Comparison(medium, payload, reader, lanes, notify)
        self._meter = Meter(notify)
        self._began = time.monotonic()
        self._needed = common(payload.needed, [(0, medium.size)])
        self._head = [(0, payload.head)]
        self._journal = Journal(
            fingerprint=payload.fingerprint, title=title[:200], phase="begun", done=0
        )

    def run(self, mode: Mode, *, probed: bool, proof: Callable[[], None]) -> Outcome:
        """All of it; see `write_card`."""
        todo = self._todo(mode)
        if todo is None:
            return Outcome(0, amount(self._needed), 0, self._seconds(), unchanged=True)
        head = common(self._needed, self._head)
        body, check = without(todo.write, self._head), without(todo.check, self._head)
        self._meter.expect(write=amount(body), verify=amount(check))
        self._lanes.once(self._blank)
        self._note("begun", todo.done)
        if probed and not todo.done:
            self._meter.begin("probe")
            self._lanes.once(lambda: probe(self._medium, keep=todo.keep, fill=body))
        self._meter.begin("write")
        self._write_body(body)
        if probed:
            self._lanes.once(lambda: scatter(self._medium, keep=self._needed))
        self._lanes.once(self._medium.flush)
        self._note("verify", self._payload.size)
        self._meter.begin("verify")
        rewritten = self._card.verify(check, self._meter.add)
        if probed:
            place = [(journal.OFFSET, journal.SIZE)] if self._has_journal else []
            self._lanes.once(lambda: strays(self._medium, without(self._head, place)))
        proof()
        rewritten += self._finish(head)
        written = amount(body) + amount(head) + rewritten
        return Outcome(written, amount(check) + amount(head), rewritten, self._seconds())

    def _todo(self, mode: Mode) -> _Todo | None:
        """What there is to do; None if the card holds the payload already."""
        everything = _Todo(self._needed, self._needed)
        if mode == "fresh":
            return everything
        found = self._found()
        if mode == "resume" and found is not None and found.done:
            left = common(self._needed, [(found.done, self._medium.size)])
            return _Todo(left, self._needed, self._needed, found.done)
        if not self._worth_comparing():
            return everything
        self._meter.expect(compare=amount(self._needed))
        self._meter.begin("compare")
        different = self._card.differing(self._needed, unit=_PIECE, done=self._meter.add)
        if not different:
            return None
        return _Todo(different, different, without(self._needed, different))

    def _found(self) -> Journal | None:
        """The journal of this very payload on the card."""
        if not self._has_journal:
            return None
        block = memoryview(buffer(journal.SIZE))[: journal.SIZE]
        self._lanes.once(lambda: self._medium.read_into(journal.OFFSET, block))
        found = journal.decode(bytes(block))
        return found if found and found.fingerprint == self._payload.fingerprint else None

    def _worth_comparing(self) -> bool:
        """Whether enough of some pieces, spread over the card, is right already."""
        all_pieces = list(pieces(without(self._needed, self._head), _PIECE))
        some = all_pieces[:: max(1, len(all_pieces) // _SAMPLES)]
        wrong = amount(self._card.differing(some, unit=_PIECE))
        return wrong <= (1 - _WORTH_COMPARING) * amount(some)

    @property
    def _has_journal(self) -> bool:
        return self._payload.head >= journal.OFFSET + journal.SIZE

    def _blank(self) -> None:
        """No partition table, no old signatures at both ends; the first block goes first."""
        self._medium.zero(0, BLOCK)
        self._medium.flush()
        self._medium.zero(BLOCK, self._payload.head - BLOCK)
        self._zero_tail()
        self._medium.flush()

    def _zero_tail(self) -> None:
        """Zeros over the last MiB, but for what is needed there: an old GPT has its copy at the end."""
        size = self._medium.size
        start = max(self._payload.head, (size - _TAIL) // BLOCK * BLOCK)
        careful = (size - _LAST) // BLOCK * BLOCK
        for at, length in without([(start, size - start)] if start < size else [], self._needed):
            for begin, count in pieces([(at, length)], BLOCK if at >= careful else CHUNK):
                self._medium.zero(begin, count)

    def _note(self, phase: str, done: int) -> None:
        """Write the journal; it is safe with the next flush, and until then the one before holds."""
        self._journal = replace(self._journal, phase=phase, done=done)
        if self._has_journal:
            block = memoryview(buffer(journal.SIZE))[: journal.SIZE]
            block[:] = journal.encode(self._journal)
            self._lanes.once(lambda: self._medium.write(journal.OFFSET, block))

    def _write_body(self, body: Sequence[Range]) -> None:
        for stretch in _stretches(body):
            self._card.write(stretch, self._meter.add)
            self._lanes.once(self._medium.flush)
            self._note("write", sum(stretch[-1]))

    def _finish(self, head: Sequence[Range]) -> int:
        """The head, its first block last; then what makes the card this node is read once more."""
        first = [(0, BLOCK)]
        stamp = [(patch.offset, len(patch.data)) for patch in self._payload.patches]
        delta = rounded([*head, *stamp], BLOCK, self._medium.size)
        self._lanes.once(self._zero_tail)
        try:
            self._meter.begin("finish")
            self._card.write(without(head, first))
            self._lanes.once(self._medium.flush)
            self._card.write(first)
            self._lanes.once(self._medium.flush)
            return self._card.verify(delta)
        except BaseException:
            self._take_back()
            raise

    def _take_back(self) -> None:
        """The partition table goes again: what could not be proven is no card."""
        with suppress(WriteFailedError):
            self._medium.zero(0, BLOCK)
            self._medium.flush()

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 1)


def _stretches(ranges: Sequence[Range]) -> Iterator[list[Range]]:
    """The ranges in groups of some megabytes."""
    group: list[Range] = []
    for piece in pieces(ranges, CHUNK):
        group.append(piece)
        if amount(group) >= _STRETCH:
            yield group
            group = []
    if group:
        yield group
