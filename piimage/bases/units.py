"""systemd's units in an image: what their [Install] sections ask for, what is enabled or masked.

Enabled means: a link below /etc/systemd/system says so, the way systemctl(1) `is-enabled` looks at
it. What a package pulls in through /usr/lib/systemd/system/*.wants is static, hence not enabled.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.facts import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from piimage.facts import FileFact

VENDOR = "/usr/lib/systemd/system"
ADMIN = "/etc/systemd/system"
SUFFIXES = (
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".slice",
)
#: A link that chooses what to boot into; it enables nothing.
DEFAULT = "default.target"
_PULLS = (".wants", ".requires", ".upholds")
_MAX_HOPS = 8
_NULL = "/dev/null"


def unit_files(listing: Mapping[str, FileFact]) -> list[str]:
    """The regular files of `listing` whose content `read_units` wants."""
    return [
        path
        for directory in (ADMIN, VENDOR)
        for path, fact in _entries(listing, directory)
        if fact.kind == "file"
    ]


def read_units(listing: Mapping[str, FileFact], contents: Mapping[str, bytes]) -> dict[str, Unit]:
    """Units by name, from all that lies at and below `VENDOR` and `ADMIN`, and the files' contents.

    A file in `ADMIN` hides the vendor's (systemd.unit(5)); a link gives a unit one more name, which
    is an entry of its own; so is an instance that a link enables (`getty@tty1.service`), beside its
    template. An empty file or a link to /dev/null masks. Links that lead to no unit are left out.
    """
    enabled = _enabled(listing)
    units: dict[str, Unit] = {}
    for directory in (VENDOR, ADMIN):
        for path, fact in _entries(listing, directory):
            name = posixpath.basename(path)
            unit = _unit(path, fact, listing, contents)
            if unit is not None:
                units[name] = replace(unit, enabled=name in enabled and not unit.masked)
    for name in enabled - units.keys():
        template = units.get(_template(name) or "")
        if template is not None:
            units[name] = replace(template, enabled=not template.masked)
    return dict(sorted(units.items()))


def _unit(
    path: str,
    fact: FileFact,
    listing: Mapping[str, FileFact],
    contents: Mapping[str, bytes],
) -> Unit | None:
    source = path if fact.kind == "file" else _source(fact, listing)
    if source is None:
        return None
    if source == _NULL or not contents.get(source, b"?"):
        return Unit(path=path, masked=True)
    wants = install_section(contents.get(source, b"").decode(errors="replace"))
    return Unit(
        path=source,
        wanted_by=tuple(wants["WantedBy"]),
        required_by=tuple(wants["RequiredBy"]),
        alias=tuple(wants["Alias"]),
        also=tuple(wants["Also"]),
    )


def install_section(text: str) -> dict[str, list[str]]:
    """Keys of all [Install] sections with their words; an empty value clears what came before."""
    found: dict[str, list[str]] = defaultdict(list)
    inside = False
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        if line.startswith("["):
            inside = line == "[Install]"
        elif inside and line and line[0] not in "#;":
            key, _, value = line.partition("=")
            words = value.split()
            found[key.strip()] = found[key.strip()] + words if words else []
    return found


def _entries(listing: Mapping[str, FileFact], directory: str) -> Iterator[tuple[str, FileFact]]:
    """Units that lie in `directory` itself."""
    for path, fact in listing.items():
        parent, _, name = path.rpartition("/")
        if parent == directory and name.endswith(SUFFIXES) and fact.kind in ("file", "link"):
            yield path, fact


def _source(link: FileFact, listing: Mapping[str, FileFact]) -> str | None:
    """The file that a link to a unit leads to, by name; /dev/null if it masks, or None."""
    for _ in range(_MAX_HOPS):
        target = link.target or ""
        if posixpath.normpath(target) == _NULL:
            return _NULL
        name = posixpath.basename(target)
        path = next((p for p in (f"{ADMIN}/{name}", f"{VENDOR}/{name}") if p in listing), None)
        if path is None or listing[path].kind not in ("file", "link"):
            return None
        if listing[path].kind == "file":
            return path
        link = listing[path]
    return None


def _enabled(listing: Mapping[str, FileFact]) -> set[str]:
    """Names that links in `ADMIN` pull in or give one more name to."""
    found: set[str] = set()
    for path, fact in listing.items():
        if fact.kind != "link" or not path.startswith(f"{ADMIN}/"):
            continue
        parent, _, name = path.rpartition("/")
        target = fact.target or ""
        if parent.endswith(_PULLS):
            found |= {name, _template(name) or name}
        elif parent == ADMIN and posixpath.normpath(target) != _NULL and name != DEFAULT:
            found |= {name, posixpath.basename(target)}
    return found


def _template(name: str) -> str | None:
    """`getty@.service` of `getty@tty1.service`; None for what is no instance."""
    stem, dot, suffix = name.rpartition(".")
    prefix, at, instance = stem.partition("@")
    return f"{prefix}@{dot}{suffix}" if at and instance else None
