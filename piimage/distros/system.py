"""Which system an image holds, told from more than its `ID`: what looks alike is not the same.

Raspberry Pi OS for 64 bit says `ID=debian` in os-release like Debian itself; only /etc/rpi-issue tells
them apart (pi-gen, stage2/01-sys-tweaks). For 32 bit it said `ID=raspbian`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.errors import UnsupportedError
from piimage.report import shown

if TYPE_CHECKING:
    from piimage.facts import Facts

#: What os-release may call itself, or what it may say it is like -> the system that we know.
_BY_ID = {"debian": "debian", "raspbian": "raspios", "ubuntu": "ubuntu", "fedora": "fedora"}
_NAMES = {"debian": "Debian", "raspios": "Raspberry Pi OS", "ubuntu": "Ubuntu", "fedora": "Fedora"}
_STAGES = {"2": "Lite", "4": "desktop", "5": "full"}
_ISSUE = re.compile(r"Raspberry Pi reference (\d{4}-\d{2}-\d{2})")
_STAGE = re.compile(r"\bstage(\d)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """`kind` is `debian`, `raspios`, `ubuntu` or `fedora`; `version` that of os-release.

    Of Raspberry Pi OS `date` is that of the image (YYYY-MM-DD) and `edition` `Lite`, `desktop` or `full`; else
    both are empty.
    """

    kind: str
    version: str
    codename: str = ""
    date: str = ""
    edition: str = ""

    @property
    def words(self) -> str:
        """The system for people: `Raspberry Pi OS 13 (trixie) Lite of 2026-06-18`."""
        found = [_NAMES[self.kind], self.version, f"({self.codename})" * bool(self.codename)]
        found += [self.edition, f"of {self.date}" * bool(self.date)]
        return " ".join(filter(None, found))


def recognise(facts: Facts) -> System:
    """The system of an image; raises `UnsupportedError` that says what was seen of any other."""
    os, issue = facts.os, facts.rpi_issue or ""
    kind = next((_BY_ID[name] for name in (os.id, *os.id_like) if name in _BY_ID), None)
    if kind is None:
        raise UnsupportedError(
            f"the image's system is none that piimage knows; {_seen(facts)}",
            hint=f"known are {', '.join(_NAMES.values())}, and what says in os-release that it is like them",
        )
    if kind == "debian" and _ISSUE.search(issue):
        kind = "raspios"
    date, stage = _ISSUE.search(issue), _STAGE.search(issue)
    return System(
        kind=kind,
        version=os.version_id,
        codename=os.codename,
        date=date[1] if date and kind == "raspios" else "",
        edition=_STAGES.get(stage[1], "") if stage and kind == "raspios" else "",
    )


def _seen(facts: Facts) -> str:
    """What there was to tell it by."""
    os = facts.os
    like = f" and `ID_LIKE={' '.join(os.id_like)}`" if os.id_like else ""
    partitions = ", ".join(
        f"{p.volume or p.number} {p.filesystem.type if p.filesystem else f'type {p.type}'}"
        + (f" {shown(p.filesystem.label)}" if p.filesystem and p.filesystem.label else "")
        for p in facts.table.holders
    )
    return (
        f"saw: os-release has {shown(f'ID={os.id}')}{like}, {shown(os.pretty or 'no name')}; "
        f"{'an' if facts.rpi_issue else 'no'} rpi-issue; partitions {partitions}, "
        f"the firmware's mounted at `{facts.firmware}`; network `{facts.network_stack}`"
    )
