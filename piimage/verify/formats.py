"""Verdicts as text for people, and as files for machines: JUnit, SARIF, annotations of GitHub Actions."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from piimage.verify.catalog import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.verify.catalog import Finding
    from piimage.verify.verify import Verdict

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
#: Findings of one rule on one card that are shown to people.
_MOST = 20
#: Control characters, which XML 1.0 cannot hold and a terminal would obey.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def text(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Lines of a table: a card each, what is wrong with it below."""
    width = max((len(verdict.name) for verdict in verdicts), default=0)
    for verdict in verdicts:
        count = len(verdict.findings)
        state = "ok" if not count else f"{count} finding{'s' * (count != 1)}"
        build = f"build {verdict.build}" if verdict.build else ""
        yield _plain(f"{verdict.name:{width}}  {build:18}  {state:12}  {verdict.file}")
        shown: dict[str, int] = {}
        for finding in verdict.findings:
            shown[finding.rule] = shown.get(finding.rule, 0) + 1
            if shown[finding.rule] <= _MOST:
                place = f"{finding.path}: " if finding.path else ""
                yield _plain(f"  {finding.rule}  {place}{finding.message}")
        for rule, times in shown.items():
            if times > _MOST:
                yield f"  {rule}  and {times - _MOST} more (`--json` has them all)"
        for note in verdict.notes:
            yield _plain(f"  note   {note}")


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """A suite for each card, a case for each rule."""
    root = ET.Element("testsuites", name="piimage verify")
    for verdict in verdicts:
        broken = {f.rule for f in verdict.findings}
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_plain(verdict.name),
            tests=str(len(RULES)),
            failures=str(len(broken)),
        )
        for rule, title in RULES.items():
            case = ET.SubElement(
                suite, "testcase", classname=_plain(verdict.name), name=f"{rule} {title}"
            )
            found = [f for f in verdict.findings if f.rule == rule]
            if found:
                lines = "\n".join(
                    _plain(f"{f.path}: {f.message}" if f.path else f.message) for f in found
                )
                failure = ET.SubElement(case, "failure", message=lines.partition("\n")[0])
                failure.text = lines
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def sarif(verdicts: Sequence[Verdict], version: str) -> bytes:
    """SARIF 2.1.0: the image as artifact, the path in it as logical location."""
    rules = [
        {"id": rule, "shortDescription": {"text": title}, "helpUri": f"docs/rules/{rule}.md"}
        for rule, title in RULES.items()
    ]
    order = {rule: number for number, rule in enumerate(RULES)}
    results = [
        _result(verdict, finding, order) for verdict in verdicts for finding in verdict.findings
    ]
    driver = {"name": "piimage", "version": version, "rules": rules}
    document = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _result(verdict: Verdict, finding: Finding, order: dict[str, int]) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _plain(verdict.file).replace("\\", "/")}}
    }
    name = f"{verdict.name}:{finding.path}" if finding.path else verdict.name
    location["logicalLocations"] = [{"fullyQualifiedName": _plain(name)}]
    place = f"{finding.path}: " if finding.path else ""
    return {
        "ruleId": finding.rule,
        "ruleIndex": order[finding.rule],
        "level": "error",
        "message": {"text": _plain(f"{verdict.name}: {place}{finding.message}")},
        "locations": [location],
    }


def github(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Workflow commands that GitHub Actions shows beside a run."""
    for verdict in verdicts:
        for finding in verdict.findings:
            place = f"{finding.path}: " if finding.path else ""
            message = _plain(f"{verdict.name}: {place}{finding.message}").replace("%", "%25")
            title = f"{finding.rule} {RULES[finding.rule]}".replace(",", "%2C").replace(":", "%3A")
            yield f"::error title={title}::{message}"


def _plain(words: str) -> str:
    """Without what a hostile image could do to a terminal or a file."""
    return _CONTROL.sub("?", words)
