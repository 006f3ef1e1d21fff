"""Plays a show on a wire until its time is over or somebody ends it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .apa102 import DARK, Frame, encode

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from .lines import Wire
    from .shows import Show

#: Seconds after which a frame is sent again though it has not changed: the bar may have lost power or a bit.
REFRESH = 5.0


def play(
    show: Show,
    wire: Wire,
    brightness: int,
    *,
    seconds: float | None,
    stop: threading.Event,
    shown: Callable[[], None] = lambda: None,
) -> None:
    """Play for `seconds` (None: for ever) or until `stop`; at least one frame.

    A frame that is the same as the last is not clocked out. `shown` is called after each that was.
    """
    began = time.monotonic()
    last: Frame | None = None
    sent = began
    while True:
        now = time.monotonic()
        frame = show.frame(now - began)
        if frame != last or now - sent >= REFRESH:
            wire.send(encode(frame, brightness))
            last, sent = frame, now
            shown()
        left = None if seconds is None else began + seconds - time.monotonic()
        if left is not None and left <= 0:
            return
        if stop.wait(show.period if left is None else min(show.period, left)):
            return


def clear(wire: Wire) -> None:
    """All LEDs off."""
    wire.send(encode(DARK, 0))
