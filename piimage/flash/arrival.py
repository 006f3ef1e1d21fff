"""Waiting for cards: one comes in, is written, is taken out, and the next one comes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from piimage.errors import DeviceRefusedError
from piimage.flash.candidates import candidate, disks
from piimage.flash.device import THIS_MACHINE, read_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from piimage.flash.candidates import Candidate
    from piimage.flash.device import Device
    from piimage.flash.host import Host

#: Seconds between two looks.
EVERY = 0.5
#: What may be over in a moment: udev looks into a new card, a reader has none yet.
_PASSING = {"open-elsewhere", "claimed", "no-medium"}


@dataclass
class Arrivals:
    """Cards as they come in; those that are there at the beginning come first.

    A card that was given comes again only after it was away, which a kernel with `diskseq` always sees, and an
    older one if it was away for longer than `every` seconds. `accepted` are names of refusals that the user
    accepts; with `serial`, devices of other serial numbers are passed over, and with `only` all but that one.
    """

    accepted: frozenset[str] = frozenset()
    serial: str | None = None
    only: Path | None = None
    every: float = EVERY
    host: Host = THIS_MACHINE
    sleep: Callable[[float], None] = time.sleep
    _known: dict[object, None] | None = field(default=None, repr=False)

    def next(self, notice: Callable[[Candidate], None]) -> Candidate:
        """The next card that may be written to, once any mount of it is undone; waits without end.

        A disk that comes and may not be written to is told to `notice`; those of the beginning are not.
        """
        while True:
            first = self._known is None
            there = list(self._there())
            known = self._known or {}
            # What is gone is forgotten: it is new when it comes back.
            self._known = {d.identity: None for d in there if d.identity in known}
            for found in self._new(there):
                if not found.examined.against((*self.accepted, "mounted")):
                    return found
                if not first:
                    notice(found)
            self.sleep(self.every)

    def _there(self) -> Iterator[Device]:
        for path in disks(self.host) if self.only is None else [self.only]:
            try:
                device = read_device(path, self.host)
            except DeviceRefusedError:  # taken out while we looked
                continue
            if self.serial is None or device.serial == self.serial:
                yield device

    def _new(self, there: list[Device]) -> Iterator[Candidate]:
        """What was not known, and does not change of itself; it is known from here on."""
        assert self._known is not None  # noqa: S101 -- for mypy; `next` has set it
        for device in there:
            if device.identity in self._known:
                continue
            try:
                found = candidate(device.path, self.host)
            except DeviceRefusedError:
                continue
            firm = {r.name for r in found.examined.refusals if r.override is None}
            if firm and firm <= _PASSING:
                continue
            self._known[device.identity] = None
            yield found
