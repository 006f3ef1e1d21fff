"""libgpiod's Python module in both of its APIs, over one chip that tells a listener the levels of its lines.

Signatures and errors are those of python3-libgpiod 1.6.3 and 2.2.1: keyword names, closed chips that raise, lines
that are requested once, offsets in the order of the request.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Kernel:
    """Chips by device, and who holds which line. `listen` hears (data, clock) after every change."""

    chips: dict[str, tuple[str, int]]
    listen: Callable[[int, int], object] = lambda data, clock: None
    denied: bool = False
    held: dict[tuple[str, int], str] = field(default_factory=dict)
    levels: dict[int, int] = field(default_factory=dict)
    sets: int = 0

    def open(self, path):
        if path not in self.chips:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if self.denied:
            raise PermissionError(errno.EACCES, "Permission denied")

    def request(self, path, offsets, consumer, values):
        taken = [offset for offset in offsets if (path, offset) in self.held]
        if taken:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if max(offsets) >= self.chips[path][1]:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.held |= {(path, offset): consumer for offset in offsets}
        self.set(dict(zip(offsets, values, strict=True)))
        self.sets = 0

    def release(self, path, offsets):
        for offset in offsets:
            del self.held[path, offset]

    def set(self, values):
        """The kernel sets lines one after the other, in the order of their numbers."""
        self.sets += 1
        for offset in sorted(values):
            self.levels[offset] = values[offset]
            self.listen(self.levels.get(23, 0), self.levels.get(24, 0))


class LineBulk:
    """Of API 1."""

    def __init__(self, kernel, path, offsets):
        self._kernel, self._path, self._offsets, self._live = kernel, path, offsets, False

    def request(self, consumer, type=1, flags=0, default_vals=None):  # noqa: A002 -- libgpiod's name
        assert (type, flags) == (3, 0), "not as output"
        self._kernel.request(self._path, self._offsets, consumer, default_vals or [0, 0])
        self._live = True

    def set_values(self, values):
        if not self._live:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        if len(values) != len(self._offsets):
            raise TypeError("Number of values must be the same as the number of lines")
        self._kernel.set(dict(zip(self._offsets, values, strict=True)))

    def release(self):
        self._kernel.release(self._path, self._offsets)
        self._live = False


class Chip1:
    """Chip of API 1; `kernel` is set by `version_1`."""

    _kernel: Kernel
    OPEN_LOOKUP, OPEN_BY_NAME, OPEN_BY_PATH, OPEN_BY_LABEL, OPEN_BY_NUMBER = range(1, 6)

    def __init__(self, description, how=1):
        assert how == self.OPEN_BY_PATH
        self._kernel.open(description)
        self._path, self._open = description, True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._open = False

    def label(self):
        assert self._open, "I/O operation on closed file"
        return self._kernel.chips[self._path][0]

    def get_lines(self, offsets):
        assert self._open, "I/O operation on closed file"
        return LineBulk(self._kernel, self._path, list(offsets))


def version_1(kernel):
    """A module as libgpiod 1.6 gives it."""
    return SimpleNamespace(
        Chip=type("Chip", (Chip1,), {"_kernel": kernel}),
        LINE_REQ_DIR_AS_IS=1,
        LINE_REQ_DIR_IN=2,
        LINE_REQ_DIR_OUT=3,
        version_string=lambda: "1.6.3",
    )


class Value(Enum):
    INACTIVE = 0
    ACTIVE = 1


class Direction(Enum):
    AS_IS = 1
    INPUT = 2
    OUTPUT = 3


@dataclass
class LineSettings:
    direction: Direction = Direction.AS_IS
    output_value: Value = Value.INACTIVE


class LineRequest:
    """Of API 2."""

    def __init__(self, kernel, path, offsets):
        self._kernel, self._path, self._offsets = kernel, path, offsets

    def set_values(self, values):
        if self._offsets is None:
            raise RuntimeError("GPIO lines have been released")
        if not set(values) <= set(self._offsets):
            raise OSError(errno.EINVAL, "Invalid argument")
        self._kernel.set({offset: value.value for offset, value in values.items()})

    def release(self):
        self._kernel.release(self._path, self._offsets)
        self._offsets = None


class Chip2:
    """Chip of API 2; `kernel` is set by `version_2`."""

    _kernel: Kernel

    def __init__(self, path):
        self._kernel.open(path)
        self._path, self._open = path, True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open = False

    def get_info(self):
        assert self._open, "chip closed"
        label, lines = self._kernel.chips[self._path]
        return SimpleNamespace(name=self._path[5:], label=label, num_lines=lines)


def version_2(kernel):
    """A module as libgpiod 2.2 gives it."""

    def request_lines(path, config, consumer=None, event_buffer_size=None, output_values=None):
        kernel.open(path)
        ((lines, settings),) = config.items()
        assert settings.direction is Direction.OUTPUT
        offsets = list(lines)
        kernel.request(path, offsets, consumer, [settings.output_value.value] * len(offsets))
        return LineRequest(kernel, path, offsets)

    return SimpleNamespace(
        Chip=type("Chip", (Chip2,), {"_kernel": kernel}),
        LineSettings=LineSettings,
        request_lines=request_lines,
        line=SimpleNamespace(Value=Value, Direction=Direction),
        __version__="2.2.0",
    )


def install(monkeypatch, tmp_path, kernel, module):
    """Put `module` in gpiod's place and the chips' devices where they are looked for."""
    devices = tmp_path / "dev"
    devices.mkdir()
    chips = {str(devices / name): chip for name, chip in kernel.chips.items()}
    for path in chips:
        (devices / path.rpartition("/")[2]).touch()
    kernel.chips = chips
    monkeypatch.setattr("piimage.guest.blinkt.lines.DEVICES", devices)
    monkeypatch.setitem(__import__("sys").modules, "gpiod", module)
