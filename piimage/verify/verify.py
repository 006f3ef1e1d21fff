"""`piimage verify` below its command line: every card examined, then all of them compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piimage.verify import disks
from piimage.verify.catalog import RULES, Finding
from piimage.verify.examine import Shared, examine
from piimage.verify.traits import compared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from piimage.progress import Progress
    from piimage.verify.subjects import Subject
    from piimage.verify.traits import Traits


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One card: `notes` say what could not be compared."""

    name: str
    file: str
    build: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the keys are a stable interface."""
        return {
            "name": self.name,
            "file": self.file,
            "build": self.build,
            "ok": not self.findings,
            "findings": [
                {"rule": f.rule, "title": RULES[f.rule], "path": f.path, "message": f.message}
                for f in self.findings
            ],
            "notes": list(self.notes),
        }


def verify(subjects: Iterable[Subject], progress: Progress) -> list[Verdict]:
    """A verdict for each subject, in their order."""
    shared = Shared()
    verdicts: list[Verdict] = []
    cards: dict[str, Traits] = {}
    where: dict[str, int] = {}
    for subject in subjects:
        with progress.step(f"verifying {subject.title} ({subject.file.name})"):
            verdict, traits = _verdict(subject, shared)
        if (
            traits is not None and subject.title not in cards
        ):  # of a node's files, one speaks for it
            cards[subject.title], where[subject.title] = traits, len(verdicts)
        verdicts.append(verdict)
    for name, findings in compared(cards).items():
        verdict = verdicts[where[name]]
        verdicts[where[name]] = Verdict(
            name=verdict.name,
            file=verdict.file,
            build=verdict.build,
            findings=(*verdict.findings, *findings),
            notes=verdict.notes,
        )
    return verdicts


def _verdict(subject: Subject, shared: Shared) -> tuple[Verdict, Traits | None]:
    findings, traits = list(subject.found), None
    if subject.image is not None:
        own = shared if subject.image == subject.file or subject.patches else Shared()
        examined = examine(subject.image, subject.known, subject.patches, own)
        findings += examined.findings
        traits = examined.traits
    if subject.file.is_file() and not subject.patches:
        findings += disks.checksum(subject.file)
    verdict = Verdict(
        name=subject.title,
        file=str(subject.file),
        build=subject.known.build,
        findings=tuple(dict.fromkeys(findings)),
        notes=subject.known.notes,
    )
    return verdict, traits
