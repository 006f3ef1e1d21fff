"""One card, from the first byte to the partition table: what is broken off never looks like a whole card.

Order: head and tail zeroed, a journal, the capacity probe, the body, flush, everything read back and compared,
then the head without its first block, the first block (with the partition table), both read back.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from threading import Event as Flag
from typing import TYPE_CHECKING, Literal

from piimage.errors import PiimageError, WriteFailedError
from piimage.flash import journal
from piimage.flash.capacity import probe, scatter, strays
from piimage.flash.compare import Comparison
from piimage.flash.ends import FIRST, Ends
from piimage.flash.events import Event, Meter
from piimage.flash.journal import Journal
from piimage.flash.lanes import Lanes
from piimage.flash.medium import CHUNK, Medium, buffer
from piimage.flash.ranges import BLOCK, Range, amount, common, pieces, rounded, stretches, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from piimage.flash.payload import Payload, Reader

Mode = Literal["fresh", "resume", "update"]
#: Bytes between two flushes with a note of how far the card is safe.
_STRETCH = 64 << 20
#: Differences are written in pieces of this size: cards write no less at a time.
_PIECE = 64 << 10
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
    """What to `write`, in parts as they come, about how many bytes that is, and how far we were.

    `check` is what to read back (None: all that is needed), `keep` what of the rest of the card must stay as it is.
    """

    write: Iterable[Sequence[Range]]
    amount: int
    check: Sequence[Range] | None = None
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
    begin: Callable[[], None] = lambda: None,
    proof: Callable[[], None] = lambda: None,
) -> Outcome:
    """Make the card of `size` bytes behind `fd` hold the payload, and prove it.

    `title` says what it will be, for the journal. `resume` goes on after a break, if the journal is of the same
    payload; `update` compares first and writes what differs; where either cannot, it does as the next one.
    `probed` tries first whether the card has the room that it says. `limits` are seconds of silence until a
    warning and until the card is given up, `delays` the waits before an errored request is tried again.
    `stop` ends the write from another thread. `begin` is asked before the first byte of the card is changed, and
    `proof` about the source before the head is written: what either raises ends the write.

    Raises `WriteFailedError`, `VerifyError`, what reading the source raises, and `KeyboardInterrupt` when told to
    stop; after each, and after any break, the card has no partition table, which the message says, or is what it was
    if `begin` was not asked yet. Of a card that does not take its table back the message says that.
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
        writing = _Writing(
            medium, payload, reader, lanes=lanes, notify=notify, title=title, stop=stop or Flag()
        )
        try:
            return writing.run(mode, probed=probed, begin=begin, proof=proof)
        except PiimageError as error:
            if not writing.ends.is_blank:
                raise
            told = copy(error)  # cards that share a source share its error too
            told.message += "; the card is left without a partition table"
            told.hint = told.hint or "once that is put right, write the card again"
            raise told from error


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
        stop: Flag,
    ) -> None:
        self._stopped = stop.is_set
        self._medium, self._payload, self._lanes = medium, payload, lanes
        self._card = Comparison(medium, payload, reader, lanes, notify)
        self._meter = Meter(notify)
        self._began = time.monotonic()
        self._room = [(0, medium.size)]
        self._head = [(0, payload.head)]
        self.ends = Ends(medium, payload.head)
        self._journal = Journal(
            fingerprint=payload.fingerprint, title=title[:200], phase="begun", done=0
        )

    def run(
        self, mode: Mode, *, probed: bool, begin: Callable[[], None], proof: Callable[[], None]
    ) -> Outcome:
        """All of it; see `write_card`."""
        todo = self._todo(mode)
        if todo is None:
            return Outcome(0, amount(self._needed), 0, self._seconds(), unchanged=True)
        body = (without(common(part, self._room), self._head) for part in todo.write)
        first = next(body, [])
        self._meter.expect(write=todo.amount, verify=self._expected(todo))
        begin()
        self._lanes.once(lambda: self.ends.blank(todo.keep))
        self._note("begun", todo.done)
        if probed and not todo.done:
            self._meter.begin("probe")
            self._lanes.once(lambda: probe(self._medium, keep=todo.keep, fill=first))
        self._meter.begin("write")
        written = self._write_body(chain([first], body))
        head = common(self._needed, self._head)
        check = without(self._needed if todo.check is None else todo.check, self._head)
        self._meter.expect(write=0, verify=amount(check))
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
        written += amount(head) + rewritten
        return Outcome(written, amount(check) + amount(head), rewritten, self._seconds())

    def _todo(self, mode: Mode) -> _Todo | None:
        """What there is to do; None if the card holds the payload already."""
        needed = self._payload.map
        everything = _Todo(needed.in_turn(self._stopped), needed.expected(self._payload.head))
        if mode == "fresh":
            return everything
        found = self._found()
        if mode == "resume" and found is not None and found.done:
            rest = [(found.done, self._medium.size)]
            return _Todo(
                (common(part, rest) for part in needed.in_turn(self._stopped)),
                needed.expected(max(found.done, self._payload.head)),
                keep=[(0, self._payload.size)],
                done=found.done,
            )
        if not self._worth_comparing():
            return everything
        self._meter.expect(compare=amount(self._needed))
        self._meter.begin("compare")
        different = self._card.differing(self._needed, unit=_PIECE, done=self._meter.add)
        if not different:
            return None
        body = amount(without(different, self._head))
        return _Todo([different], body, different, without(self._needed, different))

    @cached_property
    def _needed(self) -> list[Range]:
        """All that the card needs, once it is known."""
        return common(self._payload.map.all(self._stopped), self._room)

    def _expected(self, todo: _Todo) -> int:
        """About how many bytes will be read back, but for the head."""
        if todo.check is None:
            return self._payload.map.expected(self._payload.head)
        return amount(without(todo.check, self._head))

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

    def _note(self, phase: str, done: int) -> None:
        """Write the journal; it is safe with the next flush, and until then the one before holds."""
        self._journal = replace(self._journal, phase=phase, done=done)
        if self._has_journal:
            block = memoryview(buffer(journal.SIZE))[: journal.SIZE]
            block[:] = journal.encode(self._journal)
            self._lanes.once(lambda: self._medium.write(journal.OFFSET, block))

    def _write_body(self, body: Iterable[Sequence[Range]]) -> int:
        """Write all parts, as they come; how many bytes that was."""
        written = 0
        for stretch in (each for part in body for each in stretches(part, CHUNK, _STRETCH)):
            self._card.write(stretch, self._meter.add)
            self._lanes.once(self._medium.flush)
            self._note("write", sum(stretch[-1]))
            written += amount(stretch)
        return written

    def _finish(self, head: Sequence[Range]) -> int:
        """The head, its first block last; then what makes the card this node is read once more."""
        first = [FIRST]
        stamp = [(patch.offset, len(patch.data)) for patch in self._payload.patches]
        delta = rounded([*head, *stamp], BLOCK, self._medium.size)
        self._lanes.once(lambda: self.ends.zero_tail(self._needed))
        try:
            self._meter.begin("finish")
            self._card.write(without(head, first))
            self._lanes.once(self._medium.flush)
            self.ends.is_blank = False
            self._card.write(first)
            self._lanes.once(self._medium.flush)
            return self._card.verify(delta)
        except BaseException as error:
            self.ends.take_back(error)
            raise

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 1)
