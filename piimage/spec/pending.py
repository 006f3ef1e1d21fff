"""What cluster.yaml may say and piimage does not build yet: the user is told, not left to guess."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.report import Diagnostic, Severity
from piimage.spec.seats import traits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.spec import model
    from piimage.spec.place import FieldPath
    from piimage.spec.source import Document


def pending(spec: model.Spec, document: Document) -> list[Diagnostic]:
    """A note for each field of cluster.yaml that is set and not built yet."""
    return [_note(document, path, what) for path, what in _waiting(spec)]


def _note(document: Document, path: FieldPath, what: str) -> Diagnostic:
    message = f"{what} is accepted, not built yet"
    return document.diagnostic(Severity.NOTE, path, message, code="not-built-yet", key=True)


def _waiting(spec: model.Spec) -> Iterator[tuple[FieldPath, str]]:
    for path, traits in traits_of(spec):
        if traits.base is not None and traits.base.kind == "url":
            yield (*path, "base"), "a base from a URL"
