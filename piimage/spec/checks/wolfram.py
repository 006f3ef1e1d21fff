"""Wolfram: an archive that has it, and an owner who knows what was agreed to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.report import Severity

if TYPE_CHECKING:
    from piimage.facts import Facts
    from piimage.spec.checks.outside import Outside
    from piimage.spec.draft import Draft

_SOURCES = re.compile(r"/etc/apt/sources\.list(\.d/[^/]+\.(list|sources))?")
#: A line of apt's that is no comment and names the archive of Raspberry Pi OS, not the one of Raspbian.
_ARCHIVE = re.compile(r"^[^#\n]*\barchive\.raspberrypi\.", re.MULTILINE)


def check(draft: Draft, outside: Outside) -> None:
    """Say what `true` accepts; refuse bases that are known not to have the package."""
    if not draft.spec.wolfram:
        return
    if outside.facts and not any(has_archive(facts) for facts in outside.facts):
        draft.error(
            ("wolfram",),
            "the base cannot have the Wolfram engine: only the archive of Raspberry Pi OS has it",
            "use Raspberry Pi OS as the base of role `head`, or write `wolfram: false`",
            "no-wolfram",
            key=True,
        )
        return
    draft.find(
        Severity.NOTE,
        ("wolfram",),
        "`wolfram: true` accepts the licence of the Wolfram engine, which is for Raspberry Pi boards",
        code="licence",
        key=True,
    )


def has_archive(facts: Facts) -> bool:
    """Whether apt of this base asks the archive of Raspberry Pi OS."""
    return any(
        _SOURCES.fullmatch(path) and _ARCHIVE.search(facts.text(path)) for path in facts.files
    )
