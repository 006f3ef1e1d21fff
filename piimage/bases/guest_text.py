"""Small files of an image as values: os-release, fstab, dpkg's status. Any may be broken."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from piimage.facts import OsRelease

_FIELD = re.compile(r"[A-Z][A-Z0-9_]*")
_OCTAL = re.compile(r"\\([0-7]{3})")
#: dpkg's states in which a package's files are there and set up, dpkg(1).
_INSTALLED = ("installed", "triggers-awaited", "triggers-pending")


@dataclass(frozen=True, slots=True)
class FstabLine:
    """One line of fstab(5): `spec` such as `LABEL=boot`, `target` an absolute path, `fstype`, `options`."""

    spec: str
    target: str
    fstype: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Packages:
    """Installed packages `{name: version}` and the architectures seen, `all` left out."""

    versions: dict[str, str]
    architectures: frozenset[str]


def assignments(text: str) -> dict[str, str]:
    """`NAME=value` lines as os-release(5) has them, quotes undone; other lines are skipped."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, sign, value = line.strip().partition("=")
        if not sign or not _FIELD.fullmatch(name):
            continue
        try:
            words = shlex.split(value, comments=False)
        except ValueError:
            continue
        found[name] = words[0] if words else ""
    return found


def os_release(text: str) -> OsRelease | None:
    """The fields that decide something, or None when there is no `ID`."""
    fields = assignments(text)
    if not fields.get("ID"):
        return None
    return OsRelease(
        id=fields["ID"],
        version_id=fields.get("VERSION_ID", ""),
        codename=fields.get("VERSION_CODENAME", ""),
        id_like=tuple(fields.get("ID_LIKE", "").split()),
        pretty=fields.get("PRETTY_NAME", ""),
    )


def fstab(text: str) -> list[FstabLine]:
    """Lines that mount something at an absolute path; octal escapes undone (fstab(5))."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or words[0].startswith("#"):  # noqa: PLR2004 -- the least that mount(8) reads
            continue
        spec, target, fstype = (_OCTAL.sub(_character, word) for word in words[:3])
        spec = spec.replace('"', "")  # mount(8) takes LABEL="boot" as well
        if target.startswith("/"):
            options = tuple(words[3].split(",")) if len(words) > 3 else ()  # noqa: PLR2004 -- fstab(5)
            found.append(FstabLine(spec, target.rstrip("/") or "/", fstype, options))
    return found


def mount_unit(text: str) -> FstabLine | None:
    """What a systemd.mount(5) unit mounts, or None for a unit that does not say what and where."""
    parts = (line.partition("=") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, sign, value in parts if sign}
    what, where = fields.get("What", ""), fields.get("Where", "")
    if not what or not where.startswith("/"):
        return None
    options = tuple(fields["Options"].split(",")) if fields.get("Options") else ()
    return FstabLine(what, where.rstrip("/") or "/", fields.get("Type", "auto"), options)


def dpkg_status(text: str) -> Packages:
    """What /var/lib/dpkg/status says is installed; of two architectures the first one counts."""
    versions: dict[str, str] = {}
    architectures: set[str] = set()
    for paragraph in re.split(r"\n(?:[ \t]*\n)+", text):
        fields = dict(_headers(paragraph))
        state = fields.get("Status", "").split()
        if "Package" in fields and state and state[-1] in _INSTALLED:
            versions.setdefault(fields["Package"], fields.get("Version", ""))
            architectures.add(fields.get("Architecture", "all"))
    return Packages(versions, frozenset(architectures - {"all", ""}))


def _headers(paragraph: str) -> list[tuple[str, str]]:
    lines = (line for line in paragraph.splitlines() if line[:1] not in ("", " ", "\t"))
    pairs = (line.partition(":") for line in lines)
    return [(name, value.strip()) for name, sign, value in pairs if sign]


def _character(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))
