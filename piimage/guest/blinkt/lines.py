"""The two GPIO lines of a Blinkt, clocked by hand through libgpiod (its Python module has two APIs, 1 and 2).

The chip is found by its label, since its number differs between boards and kernels. Labels are those of the
kernel's drivers: pinctrl-bcm2835 (Pi 1 to 3, Zero) and pinctrl-bcm2711 (Pi 4, 400), both in
drivers/pinctrl/bcm/pinctrl-bcm2835.c, and pinctrl-rp1 (Pi 5). All three count the header's pins as BCM does.
"""

from __future__ import annotations

import errno
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DATA, CLOCK = 23, 24
LABELS = ("pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835")
DEVICES = Path("/dev")
CONSUMER = "piimage-blinkt"
#: Data and clock.
_REST = (0, 0)
_LEVELS = ((0, 0), (1, 0), (0, 1), (1, 1))


class NoBarError(Exception):
    """There are no lines to drive; the message says why."""


class Wire:
    """Two lines that bytes are clocked out on.

    `put` sets both at once to one of `words`, which has its argument for every (data, clock).
    """

    def __init__(
        self, put: Callable[[Any], object], words: Mapping[tuple[int, int], Any], name: str
    ) -> None:
        self.name = name
        self._put = put
        self._rest = words[_REST]
        bits = [(words[bit, 0], words[bit, 1]) for bit in (0, 1)]
        self._bytes = [
            tuple(word for place in range(7, -1, -1) for word in bits[byte >> place & 1])
            for byte in range(256)
        ]

    def send(self, data: bytes) -> None:
        """Clock out all bits of `data`: two calls a bit, the new level together with the falling clock.

        That is 657 calls for a frame of 41 bytes. On an emulated Pi 3 they take 13 ms with libgpiod 2 and 4 ms
        with libgpiod 1, most of it in the kernel.
        """
        put = self._put
        for byte in data:
            for word in self._bytes[byte]:
                put(word)
        put(self._rest)

    def close(self) -> None:
        """Give the lines back; the LEDs keep what they show."""


def find_chip(gpiod: Any) -> str:  # noqa: ANN401 -- a module of either API
    """The device of the header's GPIO chip; raises `NoBarError`."""
    seen = []
    for path in sorted(map(str, DEVICES.glob("gpiochip*"))):
        try:
            label = _label(gpiod, path)
        except OSError as error:
            seen.append(f"{path}: {error.strerror}")
            if error.errno in {errno.EACCES, errno.EPERM}:
                raise NoBarError(f"{path} is not for this user: try sudo") from error
            continue
        if label in LABELS:
            return path
        seen.append(f"{path}: {label}")
    known = "there is no GPIO chip of a Raspberry Pi"
    raise NoBarError(f"{known} ({'; '.join(seen)})" if seen else known)


def open_wire() -> Wire:
    """The lines of the header, requested as outputs; raises `NoBarError`."""
    gpiod = load_gpiod()
    path = find_chip(gpiod)
    try:
        return _Wire2(gpiod, path) if _is_api_2(gpiod) else _Wire1(gpiod, path)
    except OSError as error:
        what = "in use by another program" if error.errno == errno.EBUSY else error.strerror
        raise NoBarError(f"GPIO {DATA} and {CLOCK} of {path}: {what}") from error


def load_gpiod() -> Any:  # noqa: ANN401 -- a module of either API
    """The module of libgpiod; raises `NoBarError` when it is not installed."""
    try:
        return importlib.import_module("gpiod")
    except ImportError as error:
        raise NoBarError("the Python module gpiod is missing (package python3-libgpiod)") from error


def _is_api_2(gpiod: Any) -> bool:  # noqa: ANN401 -- a module of either API
    return hasattr(gpiod, "LineSettings")


def _label(gpiod: Any, path: str) -> str:  # noqa: ANN401 -- a module of either API
    if _is_api_2(gpiod):
        with gpiod.Chip(path) as chip:
            return str(chip.get_info().label)
    with gpiod.Chip(path, gpiod.Chip.OPEN_BY_PATH) as chip:
        return str(chip.label())


class _Wire1(Wire):
    """Through API 1 (libgpiod 1.x)."""

    def __init__(self, gpiod: Any, path: str) -> None:  # noqa: ANN401 -- a module
        self._chip = gpiod.Chip(path, gpiod.Chip.OPEN_BY_PATH)
        try:
            self._lines = self._chip.get_lines([DATA, CLOCK])
            self._lines.request(
                consumer=CONSUMER, type=gpiod.LINE_REQ_DIR_OUT, default_vals=list(_REST)
            )
        except OSError:
            self._chip.close()
            raise
        words = {levels: list(levels) for levels in _LEVELS}
        super().__init__(self._lines.set_values, words, f"{path}, libgpiod 1")

    def close(self) -> None:
        self._lines.release()
        self._chip.close()


class _Wire2(Wire):
    """Through API 2 (libgpiod 2.x)."""

    def __init__(self, gpiod: Any, path: str) -> None:  # noqa: ANN401 -- a module
        value = (gpiod.line.Value.INACTIVE, gpiod.line.Value.ACTIVE)
        settings = gpiod.LineSettings(direction=gpiod.line.Direction.OUTPUT, output_value=value[0])
        self._request = gpiod.request_lines(
            path, consumer=CONSUMER, config={(DATA, CLOCK): settings}
        )
        words = {levels: {DATA: value[levels[0]], CLOCK: value[levels[1]]} for levels in _LEVELS}
        super().__init__(self._request.set_values, words, f"{path}, libgpiod 2")

    def close(self) -> None:
        self._request.release()
