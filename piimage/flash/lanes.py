"""Several requests of one card in flight, with the source read ahead, and a watch over whether the card answers."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Event, Lock, Thread
from typing import TYPE_CHECKING, TypeVar

from piimage.flash.medium import CHUNK, CardGoneError, buffer

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable

    from piimage.flash.medium import Medium

T = TypeVar("T")

#: Requests in flight. SD cards behind USB take one at a time; a second keeps the bus busy, and deep queues have
#: made ordinary readers stall (rpi-imager issues 1592, 1731, 1742).
DEPTH = 2
#: Lanes beyond the requests in flight read the source meanwhile.
_AHEAD = 1
#: Seconds without an answer until a warning, and until the card is given up.
_SLOW, _DEAD = 30.0, 120.0
#: Seconds that requests under way get to end, once something else has gone wrong.
_PATIENCE = 15.0


class Lanes:
    """Threads' buffers for one card, `each` of them per lane, kept from one phase to the next."""

    def __init__(
        self,
        medium: Medium,
        *,
        each: int = 2,
        slow: Callable[[float], None] = lambda _: None,
        limits: tuple[float, float] = (_SLOW, _DEAD),
        stop: Event | None = None,
    ) -> None:
        self._medium, self._slow, self._limits = medium, slow, limits
        self._stop = stop or Event()
        self._buffers = [tuple(buffer(CHUNK) for _ in range(each)) for _ in range(DEPTH + _AHEAD)]
        #: Held around each request to the card.
        self.turn = BoundedSemaphore(DEPTH)

    def run(
        self,
        items: Iterable[T],
        work: Callable[[T, tuple[mmap.mmap, ...]], None],
        done: Callable[[T], None] = lambda _: None,
    ) -> None:
        """Do `work(item, buffers)` for all items, begun in order; `done(item)` is called here, as each ends.

        The first exception ends it: what is under way is waited for, nothing further begun. Raises
        `CardGoneError` when no request of the card ends for two minutes, `KeyboardInterrupt` when told to stop.
        """
        # Each item in a tuple, so that None can mean the end.
        source, lock, stop = ((item,) for item in items), Lock(), Event()
        ended: SimpleQueue[tuple[str, T | BaseException | None]] = SimpleQueue()

        def lane(buffers: tuple[mmap.mmap, ...]) -> None:
            try:
                while not stop.is_set():
                    with lock:
                        item = next(source, None)
                    if item is None:
                        break
                    work(item[0], buffers)
                    ended.put(("item", item[0]))
            except BaseException as error:  # noqa: BLE001 -- handed to the caller's thread
                stop.set()
                ended.put(("error", error))
            ended.put(("end", None))

        for buffers in self._buffers:
            Thread(target=lane, args=(buffers,), daemon=True).start()
        left = [len(self._buffers)]
        try:
            self._follow(ended, done, left)
        except BaseException:
            stop.set()
            self._let_end(ended, left)
            raise

    def once(self, action: Callable[[], None]) -> None:
        """Do one thing that waits for the card, under the same watch."""
        self.run([None], lambda *_: action())

    def _follow(
        self,
        ended: SimpleQueue[tuple[str, T | BaseException | None]],
        done: Callable[[T], None],
        left: list[int],
    ) -> None:
        """Pass on what has ended; raise the first error. `left` counts the lanes that still run."""
        watch = _Watch(self._medium, self._slow, self._limits)
        while left[0]:
            if self._stop.is_set():
                raise KeyboardInterrupt
            try:
                what, value = ended.get(timeout=min(0.5, self._limits[0] / 2))
            except Empty:
                watch.look()
                continue
            if what == "end":
                left[0] -= 1
            elif isinstance(value, BaseException):
                raise value
            else:
                done(value)  # type: ignore[arg-type]  # an item: T is not BaseException here

    def _let_end(
        self, ended: SimpleQueue[tuple[str, T | BaseException | None]], left: list[int]
    ) -> None:
        """Wait for what is under way, for the descriptor will be closed; what hangs may begin nothing more."""
        until = time.monotonic() + (0 if self._medium.given_up.is_set() else _PATIENCE)
        while left[0] and (wait := until - time.monotonic()) > 0:
            with suppress(Empty):
                left[0] -= ended.get(timeout=wait)[0] == "end"
        if left[0]:
            self._medium.given_up.set()


class _Watch:
    """Notices when a card stops to answer."""

    def __init__(
        self, medium: Medium, slow: Callable[[float], None], limits: tuple[float, float]
    ) -> None:
        self._medium, self._slow, (self._warn, self._dead) = medium, slow, limits
        self._seen, self._since, self._warned = medium.answers, time.monotonic(), False

    def look(self) -> None:
        now = time.monotonic()
        if self._medium.answers != self._seen:
            self._seen, self._since, self._warned = self._medium.answers, now, False
        silent = now - self._since
        if silent > self._dead:
            self._medium.given_up.set()
            raise CardGoneError(
                f"the card has not answered for {silent:.0f} s",
                hint="pull it and put it in again, in another reader if you have one; `--resume` goes on",
            )
        if silent > self._warn and not self._warned:
            self._warned = True
            self._slow(silent)
