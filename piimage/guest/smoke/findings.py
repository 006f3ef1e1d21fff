"""What a check found, and the sentence about it when it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One check: `ok` None means that it could not be judged or is only a note; `words` are for people."""

    name: str
    ok: bool | None
    expected: str | None = None
    found: str | None = None
    words: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as the report has it."""
        return {
            "name": self.name,
            "ok": self.ok,
            "expected": self.expected,
            "found": self.found,
        }

    def sentence(self, where: str = "") -> str:
        """What failed, and on which node."""
        words = self.words or f"{self.name} is {self.found}, expected {self.expected}"
        return f"{where}: {words}" if where else words


def equal(name: str, expected: object, found: object, words: str = "") -> Finding:
    """A finding about two values that must be the same; None for `found` is no answer, which fails."""
    shown = "no answer" if found is None else str(found)
    return Finding(name, expected == found, str(expected), shown, words)


def note(name: str, found: object, expected: str | None = None) -> Finding:
    """Something worth knowing that fails nothing."""
    return Finding(name, None, expected, None if found is None else str(found))
