"""End processes that a C library waits for, when a signal comes or a limit is over.

While a library's function runs, Python runs no signal handlers: a thread of ours hears of a signal through
`signal.set_wakeup_fd`, and ends what the function waits for, so that it returns.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.2  # seconds: a process may be started after the signal came


class Watch:
    """What has happened: `interrupted` by one of `_SIGNALS`, `late` when the limit was over."""

    def __init__(self) -> None:
        self.interrupted = False
        self.late = False


@contextmanager
def watched(pids: Callable[[], Iterable[int]], limit: float | None = None) -> Iterator[Watch]:
    """Kill `pids` when SIGINT, SIGTERM or SIGHUP comes, or when the block takes more than `limit` seconds.

    After a signal `KeyboardInterrupt` is raised where the block ends. In other threads than the main one, which
    signals do not reach, only the limit counts.
    """
    watch = Watch()
    ours, theirs = socket.socketpair()
    guard = threading.Thread(target=_guard, args=(watch, theirs, pids, limit), daemon=True)
    with ours, theirs, _signals_to(ours):
        guard.start()
        try:
            yield watch
        finally:
            ours.send(b"\0")
            guard.join()
            if watch.interrupted:
                raise KeyboardInterrupt


def children(thread: int) -> set[int]:
    """Processes that a thread of this process has started, but for copies of this program (proc(5))."""
    found = set()
    own = Path("/proc/self/exe").readlink()
    for pid in Path(f"/proc/self/task/{thread}/children").read_text(encoding="ascii").split():
        with suppress(OSError):
            if Path(f"/proc/{pid}/exe").readlink() != own:
                found.add(int(pid))
    return found


@contextmanager
def _signals_to(wakeup: socket.socket) -> Iterator[None]:
    """Numbers of signals are written to `wakeup`, and no handler raises anything in the middle of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number, handler in before.items() if callable(handler)]
    wakeup.setblocking(False)
    fd = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    for number in caught:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(fd)


def _guard(
    watch: Watch, wakeup: socket.socket, pids: Callable[[], Iterable[int]], limit: float | None
) -> None:
    """Wait for a signal, for the limit, or for the end of the block, which is a zero."""
    end = None if limit is None else time.monotonic() + limit
    while True:
        angry = watch.interrupted or watch.late
        wait = _AGAIN if angry else None if end is None else max(end - time.monotonic(), 0)
        if select.select([wakeup], [], [], wait)[0]:
            came = wakeup.recv(64)
            watch.interrupted |= any(number in came for number in _SIGNALS)
            if 0 in came:
                return
        elif not angry:
            watch.late = True
        if watch.interrupted or watch.late:
            for pid in pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
