"""From a document to models, all mistakes at once.

What is wrong is reported, then left out or replaced by a stand-in, so that the checks across
mappings can still look at everything else. `Draft.whole` tells them what was left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from piimage.report import Diagnostic, Severity
from piimage.spec import model
from piimage.spec.messages import explain, intended, without_tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.spec.messages import Mistake
    from piimage.spec.place import FieldPath
    from piimage.spec.source import Document

#: Stand-ins for required fields that are missing or wrong; `*` is an index, `{}` takes it.
_STUBS: dict[FieldPath, Any] = {
    ("version",): 1,
    ("name",): "stand-in",
    ("users",): [{"name": "stand-in", "uid": 50000}],
    ("users", "*", "name"): "stand-in{}",
    ("users", "*", "uid"): 50000,
    ("network",): {"wired": {"subnet": "10.0.0.0/8"}},
    ("network", "wired"): {"subnet": "10.0.0.0/8"},
    ("network", "wired", "subnet"): "10.0.0.0/8",
    ("network", "wifi", "ssid"): "stand-in",
    ("network", "wifi", "psk"): "0" * 64,
    ("network", "wifi", "country"): "US",
    ("shares", "*", "path"): "/srv/stand-in{}",
    ("nodes",): {"count": 1},
    ("nodes", "count"): 1,
}
_MAX_ROUNDS = 20


@dataclass(slots=True)
class Draft:
    """Models of what is valid in a document, and the findings so far."""

    document: Document
    spec: Any = None
    findings: list[Diagnostic] = field(default_factory=list)
    dropped: set[FieldPath] = field(default_factory=set)
    stubs: dict[FieldPath, Any] = field(default_factory=dict)
    _origins: dict[FieldPath, FieldPath] = field(default_factory=dict)

    def origin(self, path: FieldPath) -> FieldPath:
        """The path in the file of a path in `spec` (list entries left out shift the rest)."""
        for size in range(len(path), 0, -1):
            found = self._origins.get(path[:size])
            if found is not None:
                return (*found, *path[size:])
        return path

    def whole(self, *path: str | int) -> bool:
        """Whether nothing at, above or below the (file's) path was left out or replaced."""
        return not any(
            path[: len(gone)] == gone[: len(path)] for gone in (*self.dropped, *self.stubs)
        )

    def find(
        self,
        severity: Severity,
        path: FieldPath,
        message: str,
        hint: str | None = None,
        code: str = "",
        *,
        key: bool = False,
    ) -> None:
        """Add a finding about a path in `spec`."""
        where = self.origin(path)
        self.findings.append(
            self.document.diagnostic(severity, where, message, hint=hint, code=code, key=key)
        )

    def error(
        self,
        path: FieldPath,
        message: str,
        hint: str | None = None,
        code: str = "",
        *,
        key: bool = False,
    ) -> None:
        """Add an error."""
        self.find(Severity.ERROR, path, message, hint, code, key=key)

    def warning(
        self,
        path: FieldPath,
        message: str,
        hint: str | None = None,
        code: str = "",
        *,
        key: bool = False,
    ) -> None:
        """Add a warning."""
        self.find(Severity.WARNING, path, message, hint, code, key=key)

    def remaining(self) -> Any:  # noqa: ANN401 -- plain YAML values
        """The document's data without what was dropped, with stand-ins; refreshes `origin`."""
        self._origins = {}
        return self._rebuild(self.document.data, (), ())

    def _rebuild(self, value: Any, old: FieldPath, new: FieldPath) -> Any:  # noqa: ANN401 -- plain YAML values
        if isinstance(value, list):
            kept: list[Any] = []
            for index, item in enumerate(value):
                if (*old, index) not in self.dropped:
                    place = (*new, len(kept))
                    self._origins[place] = (*old, index)
                    kept.append(self._rebuild(item, (*old, index), place))
            return kept
        if isinstance(value, dict):
            found = {
                key: self._rebuild(item, (*old, key), (*new, key))
                for key, item in value.items()
                if (*old, key) not in self.dropped
            }
            found.update({path[-1]: stub for path, stub in self.stubs.items() if path[:-1] == old})
            return found
        return value


def draft(document: Document, root: type[model.Model] = model.Spec) -> Draft:
    """Validate `document` against `root`; `spec` stays None only when nothing of it can be used."""
    result = Draft(document, findings=list(document.problems), dropped=set(document.broken))
    for number in range(_MAX_ROUNDS):
        try:
            result.spec = root.model_validate(result.remaining())
        except ValidationError as failure:
            errors = failure.errors(include_url=False)
            if number == 0:
                _report(result, errors, root)
            origins = [result.origin(_field(error)) for error in errors]
            for error, path in zip(errors, origins, strict=True):
                _remove(result, str(error["type"]), path, root)
        else:
            break
    return result


def _field(error: Any) -> FieldPath:  # noqa: ANN401 -- pydantic's error dict
    return tuple(part for part in without_tags(error["loc"]) if part != "[key]")


def _report(result: Draft, errors: Sequence[Any], root: type[model.Model]) -> None:
    """Add a finding for each error, but none for a field that is missing because it is misspelt."""
    mistakes = [(error, explain(error, root)) for error in errors]
    misspelt = {
        (*mistake.path[:-1], meant)
        for error, mistake in mistakes
        if mistake.code == "unknown-key" and (meant := intended(mistake.path, root))
    }
    for error, mistake in mistakes:
        field_path = _field(error)
        if error["type"] == "missing" and field_path in misspelt:
            continue
        if result.origin(field_path) not in result.dropped:
            _find(result, mistake)


def _find(result: Draft, mistake: Mistake) -> None:
    result.find(
        Severity.ERROR,
        mistake.path,
        mistake.message,
        mistake.hint,
        mistake.code,
        key=mistake.key,
    )


def _remove(result: Draft, kind: str, path: FieldPath, root: type[model.Model]) -> None:
    """Leave out what an error is about, so that the rest can be validated."""
    result.dropped.add(path)
    if kind not in {"missing", "too_short"}:
        return
    stub = _stub(path) if root is model.Spec else None
    if stub is not None:
        result.stubs[path] = stub
    elif kind == "missing":
        result.dropped.add(path[:-1])


def _stub(path: FieldPath) -> Any:  # noqa: ANN401 -- plain YAML values
    index = next((part for part in path if isinstance(part, int)), 0)
    found = _STUBS.get(tuple("*" if isinstance(part, int) else part for part in path))
    if isinstance(found, str):
        return found.format(index)
    return found + index if found == _STUBS["users", "*", "uid"] else found
