"""Settings of the whole system: a time zone and a base that exist."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from piimage.report import shown
from piimage.spec.paths import located
from piimage.spec.profiles import suggestion
from piimage.spec.seats import traits_of

if TYPE_CHECKING:
    from piimage.spec.checks.outside import Outside
    from piimage.spec.draft import Draft


def check(draft: Draft, outside: Outside) -> None:
    """Add what is wrong with the time zone and the bases."""
    _timezone(draft, outside)
    for path, traits in traits_of(draft.spec):
        base = traits.base
        if base is None:
            continue
        where = (*path, "base")
        if base.kind == "name" and outside.bases and base.value not in outside.bases:
            hint = suggestion(base.value, sorted(outside.bases), "known bases")
            draft.error(where, f"{shown(base.value)} is not in the catalog", hint, "unknown-base")
        if base.kind == "path":
            file = located(base.value, outside.directory, outside.env)
            if not file.is_file():
                message = f"there is no image at {shown(base.value)} yet"
                draft.warning(where, message, f"looked for {shown(file, 500)}", "no-base")


def _timezone(draft: Draft, outside: Outside) -> None:
    name = draft.spec.timezone
    lists = [facts.timezones for facts in outside.facts if facts.timezones]
    known = frozenset.intersection(*lists) if lists else frozenset[str]()
    if name in known or (not lists and _on_this_machine(name)):
        return
    names = known or available_timezones()
    if not names:
        return
    close = get_close_matches(name, names, 1) or [
        zone for zone in sorted(names) if zone.lower().rpartition("/")[2] == name.lower()
    ]
    hint = f"did you mean {shown(close[0])}?" if close else "for example `Europe/Rome`, `Etc/UTC`"
    where = "the base knows no time zone" if lists else "there is no time zone"
    draft.error(("timezone",), f"{where} {shown(name)}", hint, "timezone")


def _on_this_machine(name: str) -> bool:
    if name.startswith(("posix/", "right/")):
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
