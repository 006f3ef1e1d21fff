from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event

import pytest

from piimage.disk.chunks import Chunks


def numbered(number, view):
    """A chunk that says which it is."""
    view[:] = bytes([number]) * len(view)
    return len(view) - number % 3


def test_many_readers_of_few_buffers_all_see_their_own_chunk():
    with closing(Chunks(numbered, size=4096, count=3, threads=2)) as chunks:

        def read(seed):
            for step in range(100):
                number = (seed + step * 7) % 40
                with chunks.held(number, [(number + 1) % 40, (number + 2) % 40]) as content:
                    assert len(content) == 4096 - number % 3
                    assert bytes(content) == bytes([number]) * len(content)

        with ThreadPoolExecutor(6) as readers:
            for each in [readers.submit(read, seed) for seed in range(6)]:
                each.result(timeout=30)


def test_no_buffer_is_made_beyond_those_that_were_allowed():
    seen = set()

    def make(number, view):
        seen.add(id(view.obj))
        return len(view)

    with closing(Chunks(make, size=4096, count=4, threads=2)) as chunks:
        for number in range(50):
            with chunks.held(number, range(number + 1, number + 9)):
                pass

    assert len(seen) == 4


def test_what_is_kept_is_not_made_again():
    made = []

    def make(number, view):
        made.append(number)
        return len(view)

    with closing(Chunks(make, size=4096, count=3, threads=1)) as chunks:
        for number in (0, 1, 0, 2, 3, 0, 1):
            with chunks.held(number):
                pass

    assert made == [0, 1, 2, 3, 1]  # 1 was the one that was not used for longest


def test_who_finds_no_buffer_waits_until_one_is_let_go():
    with closing(Chunks(numbered, size=4096, count=1, threads=1)) as chunks:
        got = Event()

        def other():
            with chunks.held(2) as content:
                assert content[0] == 2
            got.set()

        with chunks.held(1) as content:
            thread = threading.Thread(target=other)
            thread.start()
            assert not got.wait(0.1)
            assert content[0] == 1
        assert got.wait(10)
        thread.join()


def test_what_cannot_be_made_is_told_to_each_who_asks_and_costs_no_buffer():
    def make(number, view):
        if number == 1:
            raise ValueError(number)
        return numbered(number, view)

    with closing(Chunks(make, size=4096, count=2, threads=2)) as chunks:
        for _ in range(3):
            with pytest.raises(ValueError, match="1"), chunks.held(1, [2]):
                pass
            with chunks.held(0) as content:
                assert content[0] == 0


def test_the_buffers_go_with_the_end_but_for_those_that_are_read():
    class Owner:
        """Knows its chunks, which know it, as what makes them does."""

        def __init__(self):
            self.made = []
            self.chunks = Chunks(self.make, size=4096, count=3, threads=1)

        def make(self, number, view):
            self.made.append(weakref.ref(view.obj))
            return numbered(number, view)

    owner = Owner()
    with owner.chunks.held(0):
        pass
    with owner.chunks.held(1) as content:
        owner.chunks.close()
        assert [buffer() is None for buffer in owner.made] == [True, False]
        assert content[0] == 1
    del content
    assert owner.made[1]() is None
