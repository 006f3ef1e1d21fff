"""How the engine tells what it is doing. The engine never prints: `piimage.cli.console` shows these events."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def human(amount: float) -> str:
    """An amount of bytes for people: `1.4 GiB`. Cards are told in the same unit, as lsblk tells them."""
    for unit in _UNITS:
        if amount < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004 -- binary prefixes
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


class Task(Protocol):
    """A step under way; amounts are bytes unless the step says otherwise."""

    def total(self, amount: int) -> None:
        """Say how much there is to do, once known."""

    def advance(self, amount: int) -> None:
        """Say that this much more is done."""

    def note(self, text: str) -> None:
        """Say what is being done now, in a few words."""


class Board(Protocol):
    """Several things under way at once, each with a line of its own."""

    def note(self, name: str, text: str) -> None:
        """Say what this one is doing now."""

    def done(self, name: str, text: str, *, ok: bool = True) -> None:
        """Say how this one ended; its line stays."""


class Progress(Protocol):
    """Receives the steps of long work."""

    def step(self, title: str) -> AbstractContextManager[Task]:
        """A step with a title such as `copying the base`; leaving the block ends it."""

    def board(self, title: str, names: Sequence[str]) -> AbstractContextManager[Board]:
        """A step that does several things at once, by name; leaving the block ends it."""

    def say(self, text: str) -> None:
        """One line that stays."""

    def warn(self, text: str) -> None:
        """One line that stays and stands out."""


class _NoTask:
    def total(self, amount: int) -> None:
        pass

    def advance(self, amount: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _NoBoard:
    def note(self, name: str, text: str) -> None:
        pass

    def done(self, name: str, text: str, *, ok: bool = True) -> None:
        pass


class Quiet:
    """A `Progress` that says nothing: tests, `--quiet`, library use."""

    def step(self, title: str) -> AbstractContextManager[Task]:  # noqa: ARG002 -- the protocol's shape
        """Say nothing."""
        return nullcontext(_NoTask())

    def board(
        self,
        title: str,  # noqa: ARG002 -- the protocol's shape
        names: Sequence[str],  # noqa: ARG002 -- the protocol's shape
    ) -> AbstractContextManager[Board]:
        """Say nothing."""
        return nullcontext(_NoBoard())

    def say(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""
