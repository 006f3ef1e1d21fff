"""The catalog: bases that can be had by name, from `profiles/distro/*.yaml` and `profiles/images/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from piimage.bases import image_list, publishers
from piimage.errors import ConfigError
from piimage.report import Severity, shown
from piimage.spec import source
from piimage.spec.data import data_dirs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from piimage.bases.publishers import Published

#: How a distribution's own profile says that a base of it is had.
OBTAIN = ("make",)
_FIELDS = ("description", "obtain", "suite", "architecture")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A base of the catalog: `obtain` is `make` or `pull`.

    One that is made has `suite` and `architecture` in Debian's words, one that is pulled has `published`.
    """

    name: str
    description: str
    obtain: str
    suite: str = ""
    architecture: str = ""
    published: Published | None = None


def entries(beside: Path | None = None) -> dict[str, Entry]:
    """All entries by name; a file beside cluster.yaml goes before one that ships.

    Raises `ConfigError` for a file that is not valid. Files in `distro` that say nothing of `obtain` describe
    a distribution whose images come from elsewhere, and are no entries. Publishers' own lists count as they
    were when they were last asked for.
    """
    known, images = publishers.read_all(beside)
    images = {**image_list.kept(known.values()), **images}
    found = {
        name: Entry(name=name, description=image.description, obtain="pull", published=image)
        for name, image in images.items()
    }
    for directory in reversed(data_dirs("profiles", beside)):
        for path in sorted((directory / "distro").glob("*.yaml")):
            document = source.read(path)
            if "obtain" in document.data:
                found[path.stem] = _entry(path.stem, document)
    return dict(sorted(found.items()))


def cure(name: str, present: Iterable[str]) -> str:
    """What to do about a base that is not here, in a few words."""
    known = entries()
    if name in known:
        return f"run `piimage base {known[name].obtain} {name}`"
    names = sorted({*known, *present})
    close = get_close_matches(name, names, 1) or [n for n in names if n.startswith(name)]
    if close:
        return f"did you mean `{close[0]}`? `piimage base list` shows all"
    return f"`piimage base list` shows what there is; `piimage base import FILE --name {name}` takes a file in"


def _entry(name: str, document: source.Document) -> Entry:
    values: dict[str, str] = {}
    for field in _FIELDS:
        value = document.data.get(field, "")
        if not isinstance(value, str) or (not value and field != "description"):
            _refuse(document, field, f"`{field}` must be text")
        values[field] = value
    if values["obtain"] not in OBTAIN:
        allowed = ", ".join(f"`{word}`" for word in OBTAIN)
        _refuse(
            document, "obtain", f"{shown(values['obtain'])} is not a way to have a base: {allowed}"
        )
    return Entry(
        name=name,
        description=values["description"],
        obtain=values["obtain"],
        suite=values["suite"],
        architecture=values["architecture"],
    )


def _refuse(document: source.Document, field: str, message: str) -> None:
    found = document.diagnostic(Severity.ERROR, (field,), message, code="profile")
    raise ConfigError(f"{document.file} is not a valid profile", diagnostics=[found])
