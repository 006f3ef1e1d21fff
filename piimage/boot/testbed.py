"""Many machines at once: started in order, watched by one loop, cut off or switched off together."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.boot import qemu
from piimage.boot.parallel import AT_ONCE
from piimage.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from piimage.boot.fabric import Fabric
    from piimage.boot.qemu import Vm
    from piimage.progress import Board

    #: What became of a wait: seconds, or why there will be none.
    Outcome = float | RehearsalError


@dataclass(frozen=True, slots=True)
class Start:
    """How a node is started: QEMU's arguments, the files for its console and for QEMU's own words."""

    argv: Sequence[str]
    console: Path
    messages: Path


class Testbed:
    """The machines of a rehearsal. Everything here belongs to the main thread."""

    def __init__(self, fabric: Fabric, stack: ExitStack) -> None:
        self._fabric = fabric
        self._stack = stack
        self.vms: dict[str, Vm] = {}

    @property
    def running(self) -> list[str]:
        """Names of the machines that are on."""
        return [name for name, vm in self.vms.items() if vm.running]

    def boot(
        self, starts: Mapping[str, Start], *, one_by_one: bool, limit: float, board: Board
    ) -> dict[str, Outcome]:
        """Start the nodes in the order of `starts` and wait for all their login prompts.

        `one_by_one` starts each when the one before is at its prompt or has failed; else all start at once.
        The answer has seconds from a node's own start, or why it did not come within `limit`: then it is
        off. Raises `RehearsalError` when the network fails.
        """

        def look(name: str) -> float | None:
            return self.vms[name].look(name, limit=limit)

        at_once = 1 if one_by_one else len(starts)
        return self._start_all(starts, at_once, look, board, "login after {:.0f} s")

    def first_starts(
        self, starts: Mapping[str, Start], *, limit: float, board: Board
    ) -> dict[str, Outcome]:
        """Start nodes that are to restart by themselves, as many at once as `AT_ONCE`; then none is here any more.

        The answer has seconds from a node's own start to its end, or why that did not come within `limit`.
        Raises `RehearsalError` when the network fails.
        """

        def look(name: str) -> float | None:
            return self.vms[name].look_end(limit=limit)

        outcomes = self._start_all(starts, AT_ONCE, look, board, "restarted after {:.0f} s")
        self.vms.clear()
        return outcomes

    def power_off(self, names: Sequence[str], *, limit: float, board: Board) -> dict[str, Outcome]:
        """Press these nodes' power buttons and wait for all; seconds, or why a node is still on."""
        for name in names:
            self.vms[name].press_power()

        def look(name: str) -> float | None:
            vm = self.vms[name]
            board.note(name, vm.console.newest()[:100])
            return vm.look_off(limit=limit)

        outcomes: dict[str, Outcome] = {}
        self._watch(len(names), lambda: names, look, outcomes, board, "off after {:.0f} s")
        return outcomes

    def hold(self, lost: Callable[[str], None]) -> None:
        """Return once no machine is on; `lost` hears of each that ends. A reboot starts a node again."""
        on = set(self.running)
        for name in on:
            self.vms[name].allow_reboot()
        while on:
            self._fabric.check()
            for name in sorted(on - set(self.running)):
                on.remove(name)
                lost(name)
            time.sleep(qemu.PAUSE)

    def cut(self) -> None:
        """Everything off at once, connections too: whoever waits for a node hears of it."""
        self._fabric.cut()
        for vm in self.vms.values():
            vm.kill()

    def _start_all(
        self,
        starts: Mapping[str, Start],
        at_once: int,
        look: Callable[[str], float | None],
        board: Board,
        words: str,
    ) -> dict[str, Outcome]:
        """Start in order, no more than `at_once` without an outcome at a time, until each has one."""
        waiting = list(starts)
        outcomes: dict[str, Outcome] = {}
        for name in waiting:
            board.note(name, "not started yet")

        def started() -> Iterable[str]:
            while waiting and len(self.vms) - len(outcomes) < at_once:
                self._start(waiting[0], starts[waiting[0]])
                waiting.pop(0)
            return self.vms

        def shown(name: str) -> float | None:
            vm = self.vms[name]
            at = look(name)
            board.note(name, f"{vm.seconds:.0f} s: {vm.console.newest()[:100]}")
            return at

        self._watch(len(starts), started, shown, outcomes, board, words)
        return outcomes

    def _start(self, name: str, how: Start) -> None:
        started = qemu.start(how.argv, how.console, how.messages)
        self.vms[name] = self._stack.enter_context(started)

    def _watch(  # noqa: PLR0917 -- each is of a type of its own
        self,
        count: int,
        names: Callable[[], Iterable[str]],
        look: Callable[[str], float | None],
        outcomes: dict[str, Outcome],
        board: Board,
        words: str,
    ) -> None:
        """Look at every machine in turn until each has an outcome; one that failed is cut off."""
        while len(outcomes) < count:
            self._fabric.check()
            for name in [n for n in names() if n not in outcomes]:
                try:
                    seconds = look(name)
                except RehearsalError as error:
                    self.vms[name].kill()
                    outcomes[name] = error
                    board.done(name, error.message.partition("\n")[0], ok=False)
                    continue
                if seconds is not None:
                    outcomes[name] = seconds
                    board.done(name, words.format(seconds))
            time.sleep(qemu.PAUSE)


@contextmanager
def testbed(fabric: Fabric) -> Iterator[Testbed]:
    """An empty testbed; all its machines end with the block."""
    with ExitStack() as stack:
        made = Testbed(fabric, stack)
        try:
            yield made
        finally:
            for vm in made.vms.values():  # all at once: leaving them one after another would add up
                vm.kill()
