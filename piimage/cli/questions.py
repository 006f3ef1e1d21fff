"""Questions on the terminal: each answer is checked at once and asked for again until it is right."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from getpass import getpass
from typing import TYPE_CHECKING, TypeVar

import typer

from piimage.errors import ConfigError, PiimageError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Questions:
    """Asks on stderr, or takes every default if not `asking`."""

    asking: bool

    def answer(
        self, question: str, option: str, given: str | None, default: str, check: Callable[[str], T]
    ) -> T:
        """What was `given` by its `option`, else what the user answers; checked.

        `check` returns the value to keep or raises `ConfigError`. Raises `ConfigError` for a wrong value of the
        option, and for a wrong default when nothing is asked.
        """
        if given is not None or not self.asking:
            return _of_option(option, default if given is None else given, check)
        while True:
            text = _read(f"{question} [{default}]: " if default else f"{question}: ")
            try:
                return check(text.strip() or default)
            except ConfigError as error:
                self.say(f"{error.message}{f'; {error.hint}' if error.hint else ''}")

    def hidden(self, question: str, check: Callable[[str], T]) -> T:
        """An answer that is not shown while it is typed; an empty one is handed to `check` too."""
        while True:
            try:
                text = getpass(f"{question}: ")
            except EOFError:
                raise typer.Abort from None
            try:
                return check(text)
            except ConfigError as error:
                self.say(f"{error.message}{f'; {error.hint}' if error.hint else ''}")

    @staticmethod
    def say(text: str) -> None:
        """A line on stderr."""
        print(text, file=sys.stderr)  # noqa: T201 -- cli prints


def questions(*, yes: bool) -> Questions:
    """The way to ask; raises `PiimageError` where there is nobody to ask and `yes` does not say to go on."""
    if not yes and not sys.stdin.isatty():
        raise PiimageError(
            "there is no terminal to ask on",
            hint="`--yes` takes the defaults; options give the rest",
        )
    return Questions(asking=not yes)


def _read(question: str) -> str:
    """A line of what the user types; `input` would ask on stdout where that is no terminal."""
    print(question, end="", file=sys.stderr, flush=True)  # noqa: T201 -- cli prints
    line = sys.stdin.readline()
    if not line.endswith("\n"):  # Ctrl-D
        raise typer.Abort
    return line


def _of_option(option: str, value: str, check: Callable[[str], T]) -> T:
    try:
        return check(value)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error.message}", hint=error.hint) from None
