"""Load profiles: small files with the fields of a node minus identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from piimage.errors import ConfigError
from piimage.report import Diagnostic, shown
from piimage.spec import model, source
from piimage.spec.data import data_dirs, is_shipped
from piimage.spec.draft import draft

if TYPE_CHECKING:
    from pathlib import Path

ROLE, BOARD = "role", "board"
KINDS = (ROLE, BOARD)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A profile, how to call its file in provenance, and its field -> line map."""

    name: str
    label: str
    traits: model.Profile
    document: source.Document


@dataclass(slots=True)
class Shelf:
    """The profiles that a cluster.yaml in `directory` can name, each read at most once.

    What is wrong inside a profile is collected in `findings`.
    """

    directory: Path
    findings: list[Diagnostic] = field(default_factory=list)
    _cache: dict[tuple[str, str], Loaded | None] = field(default_factory=dict)
    _dirs: tuple[Path, ...] | None = None

    def get(self, kind: str, name: str) -> Loaded | None:
        """The profile `kind`/`name`, or None when there is no such file or it is not valid."""
        if (kind, name) not in self._cache:
            path = self._path(kind, name)
            self._cache[kind, name] = self._load(kind, name, path) if path else None
        return self._cache[kind, name]

    def has(self, kind: str, name: str) -> bool:
        """Whether there is such a file, valid or not."""
        return self._path(kind, name) is not None

    def names(self, kind: str) -> list[str]:
        """All names of that kind, sorted."""
        files = (path for place in self._places() for path in (place / kind).glob("*.yaml"))
        return sorted({path.stem for path in files})

    def in_use(self) -> list[Loaded]:
        """The valid profiles that somebody asked for so far."""
        return [profile for profile in self._cache.values() if profile is not None]

    def _places(self) -> tuple[Path, ...]:
        if self._dirs is None:
            self._dirs = data_dirs("profiles", self.directory)
        return self._dirs

    def _path(self, kind: str, name: str) -> Path | None:
        candidates = (place / kind / f"{name}.yaml" for place in self._places())
        return next((path for path in candidates if path.is_file()), None)

    def _load(self, kind: str, name: str, path: Path) -> Loaded | None:
        try:
            document = source.read(path)
        except ConfigError as error:
            self.findings += error.diagnostics
            return None
        result = draft(document, model.Profile)
        self.findings += result.findings
        if not isinstance(result.spec, model.Profile):
            return None
        origin = "shipped" if is_shipped(path) else "beside cluster.yaml"
        return Loaded(name, f"profile {kind}/{name} ({origin})", result.spec, document)


def split(name: str) -> tuple[str, str]:
    """`NAME`, `role/NAME` or `board/NAME` as kind and name."""
    kind, slash, rest = name.partition("/")
    return (kind, rest) if slash else (ROLE, name)


def suggestion(name: str, names: list[str], what: str) -> str:
    """A hint for a name that names nothing."""
    close = get_close_matches(name, names, 1)
    if close:
        return f"did you mean {shown(close[0])}?"
    return f"{what}: " + (", ".join(f"`{known}`" for known in names) or "none")
