"""What cluster.yaml may say and piimage does not build yet: the user is told, not left to guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.report import Diagnostic, Severity, shown
from piimage.spec.seats import traits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.spec import model
    from piimage.spec.place import FieldPath
    from piimage.spec.profiles import Shelf
    from piimage.spec.source import Document

#: Fields at the top that wait for later work; take a name out when its component is there.
WAITING = ("overlays",)
#: The same in roles, nodes and profiles.
WAITING_TRAITS = ("overlays",)


def pending(spec: model.Spec, document: Document, shelf: Shelf) -> list[Diagnostic]:
    """A note for each field that is set and not built yet, in cluster.yaml or a profile in use."""
    notes = [_note(document, path, what) for path, what in _waiting(spec)]
    for profile in shelf.in_use():
        names = [name for name in WAITING_TRAITS if getattr(profile.traits, name)]
        notes += [_note(profile.document, (name,), shown(name)) for name in names]
    return notes


def _note(document: Document, path: FieldPath, what: str) -> Diagnostic:
    message = f"{what} is accepted, not built yet"
    return document.diagnostic(Severity.NOTE, path, message, code="not-built-yet", key=True)


def _waiting(spec: model.Spec) -> Iterator[tuple[FieldPath, str]]:
    for name in WAITING:
        if getattr(spec, name):
            yield (name,), shown(name)
    for path, traits in traits_of(spec):
        for name in WAITING_TRAITS if path else ():
            if getattr(traits, name):
                yield (*path, name), shown(name)
        if traits.base is not None and traits.base.kind == "url":
            yield (*path, "base"), "a base from a URL"
    if spec.network.wired.gateway is not None:
        yield ("network", "wired", "gateway"), "`gateway`"
