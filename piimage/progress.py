"""How the engine tells what it is doing. The engine never prints: `piimage.cli.console` shows these events."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Task(Protocol):
    """A step under way; amounts are bytes unless the step says otherwise."""

    def total(self, amount: int) -> None:
        """Say how much there is to do, once known."""

    def advance(self, amount: int) -> None:
        """Say that this much more is done."""

    def note(self, text: str) -> None:
        """Say what is being done now, in a few words."""


class Progress(Protocol):
    """Receives the steps of long work."""

    def step(self, title: str) -> AbstractContextManager[Task]:
        """A step with a title such as `copying the base`; leaving the block ends it."""

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


class Quiet:
    """A `Progress` that says nothing: tests, `--quiet`, library use."""

    def step(self, title: str) -> AbstractContextManager[Task]:  # noqa: ARG002 -- the protocol's shape
        """Say nothing."""
        return nullcontext(_NoTask())

    def say(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""
