"""What a logical package is called on a base: data of `profiles/packages/*.yaml`.

A logical name (`nfs-server`) is looked up in the table of the release, the distribution, the family, then in
`default`; a name that no table has is a package's own name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.distros.family import family
from piimage.distros.system import recognise
from piimage.errors import ConfigError, UnsupportedError
from piimage.report import Severity, shown
from piimage.spec import source
from piimage.spec.data import data_dirs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from piimage.facts import Facts, OsRelease

#: Names of packages in dpkg (Debian policy 5.6.1) and RPM.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]+")


def real_names(
    wanted: Mapping[str, str],
    facts: Facts,
    beside: Path | None = None,
    *,
    installed: bool = False,
) -> dict[str, str]:
    """The base's own names for `{logical name: who asked for it}`, each with who asked for it.

    `beside` is the directory of cluster.yaml, whose `profiles/packages` goes before ours. What is installed in
    the base already is left out, but for `installed`. Raises `UnsupportedError` for what the base has nothing for,
    `ConfigError` for a table that is not valid.
    """
    tables = [_table(name, beside) for name in levels(facts)]
    found: dict[str, str] = {}
    for logical, who in wanted.items():
        own = next((table[logical] for table in tables if logical in table), (logical,))
        if not own:
            raise UnsupportedError(
                f"`{facts.os.pretty or facts.os.id}` has no package for `{logical}`, which {who} asks for",
                hint="if it has, name it in profiles/packages/ beside cluster.yaml",
            )
        for name in own:
            if installed or name not in facts.packages:
                found.setdefault(name, who)
    return found


def levels(facts: Facts) -> tuple[str, ...]:
    """Names of the tables to ask, the first to ask first."""
    os: OsRelease = facts.os
    kind = recognise(facts).kind
    system = (kind, os.id) if kind == "raspios" else (os.id,)
    own = [
        level
        for name in dict.fromkeys(system)
        for level in ((f"{name}-{os.version_id}", name) if os.version_id else (name,))
    ]
    return tuple(dict.fromkeys((*own, *os.id_like, family(facts).name, "default")))


def _table(name: str, beside: Path | None) -> dict[str, tuple[str, ...]]:
    """All files of that name in one, those beside cluster.yaml first."""
    merged: dict[str, tuple[str, ...]] = {}
    for directory in reversed(data_dirs("profiles", beside)):
        path = directory / "packages" / f"{name}.yaml"
        if path.is_file():
            merged |= _read(path)
    return merged


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    document = source.read(path)
    table = {}
    for logical, value in document.data.items():
        names: Iterable[object] = [] if value is None else value if isinstance(value, list) else [0]
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            message = f"{shown(logical)} must be a list of package names, or null"
            found = document.diagnostic(Severity.ERROR, (logical,), message, code="profile")
            raise ConfigError(f"{path} is not a valid table of packages", diagnostics=[found])
        table[logical] = tuple(map(str, names))
    return table
