"""Overlays: those that are named exist, and what is wrong in them is told with the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.report import Diagnostic, Severity
from piimage.spec.profiles import suggestion
from piimage.spec.seats import traits_of

if TYPE_CHECKING:
    from piimage.spec.draft import Draft
    from piimage.spec.overlays import Rack
    from piimage.spec.profiles import Shelf


def check(draft: Draft, shelf: Shelf, rack: Rack) -> list[Diagnostic]:
    """Findings about overlays, those that profiles in use name among them; the rack reads what is named."""
    found: list[Diagnostic] = []
    for path, traits in traits_of(draft.spec):
        for index, name in enumerate(traits.overlays):
            if not _there(rack, name):
                where = draft.origin((*path, "overlays", index))
                message, hint = _missing(rack, name)
                found.append(
                    draft.document.diagnostic(
                        Severity.ERROR, where, message, hint=hint, code="unknown-overlay"
                    )
                )
    for profile in shelf.in_use():
        for index, name in enumerate(profile.traits.overlays):
            if not _there(rack, name):
                message, hint = _missing(rack, name)
                found.append(
                    profile.document.diagnostic(
                        Severity.ERROR,
                        ("overlays", index),
                        message,
                        hint=hint,
                        code="unknown-overlay",
                    )
                )
    return [*found, *rack.findings]


def _there(rack: Rack, name: str) -> bool:
    rack.get(name)
    return rack.has(name)


def _missing(rack: Rack, name: str) -> tuple[str, str]:
    hint = suggestion(name, rack.names(), "known overlays")
    return f"there is no overlay `{name}`: no file `overlays/{name}/overlay.yaml`", hint
