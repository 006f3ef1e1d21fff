"""Chunks of an image that threads make ahead of who reads them, in a fixed number of buffers."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future


@dataclass(slots=True, eq=False)
class _Place:
    """A buffer, what is in it or is being put there, and how many read it or wait for that."""

    memory: memoryview = field(repr=False)
    made: Future[int]
    users: int = 0


class Chunks:
    """The last `count` chunks that were asked for, each of up to `size` bytes.

    `make(number, view)` puts chunk `number` into `view` and returns its length, on one of `threads` threads. The
    buffers are allocated once: memory that is allocated anew for each chunk is kept by malloc, in each thread.
    """

    def __init__(
        self, make: Callable[[int, memoryview], int], *, size: int, count: int, threads: int
    ) -> None:
        self._make, self._size, self._count = make, size, count
        self._kept: OrderedDict[int, _Place] = OrderedDict()
        self._changed = Condition()
        self._pool = ThreadPoolExecutor(threads, "unpack")

    def close(self) -> None:
        """End the threads; what waits for a chunk gets `CancelledError`. Buffers go as soon as nobody reads them."""
        self._pool.shutdown(cancel_futures=True)
        with self._changed:
            self._kept.clear()

    @contextmanager
    def held(self, number: int, ahead: Sequence[int] = ()) -> Iterator[memoryview]:
        """Chunk `number`, which stays as it is until the block ends; those of `ahead` are made meanwhile.

        Raises what making it raised. Who holds one must not wait for another.
        """
        with self._changed:
            while (place := self._place(number)) is None:
                self._changed.wait()
            place.users += 1
            for each in ahead:
                self._place(each)
        try:
            yield place.memory[: place.made.result()]
        finally:
            with self._changed:
                place.users -= 1
                self._changed.notify_all()

    def _place(self, number: int) -> _Place | None:
        """Where the chunk is or will be; None if all buffers are in use."""
        found = self._kept.get(number)
        if found is None:
            memory = self._spare()
            if memory is None:
                return None
            made = self._pool.submit(self._make, number, memory)
            found = self._kept[number] = _Place(memory, made)
            made.add_done_callback(self._told)
        self._kept.move_to_end(number)
        return found

    def _spare(self) -> memoryview | None:
        """A buffer that nobody needs any more, the longest unused one first."""
        if len(self._kept) < self._count:
            return memoryview(mmap.mmap(-1, self._size))
        for number, place in self._kept.items():
            if not place.users and place.made.done():
                return self._kept.pop(number).memory
        return None

    def _told(self, _: Future[int]) -> None:
        with self._changed:
            self._changed.notify_all()
