"""The record of a rehearsal: what was started, what was added to it, what was found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from piimage.errors import RehearsalError

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.boot.checks import Finding

VERSION = 1
#: Said in every report: an emulator is not the board.
NOT_REHEARSED = (
    "the board's firmware reading config.txt",
    "the board's own network interfaces and radio",
    "the board's speed",
)


@dataclass(slots=True, kw_only=True)
class Rehearsal:
    """One rehearsal. `timings` are seconds; `additions` are kernel tokens that the card does not have.

    `artifact` is the image that was started, `stamp` what made it the node's, where it is a variant.
    `facts` is what the node said of itself (None where nobody logged in), `error` why it ended early,
    `silent` how a first start stopped before this one, `access_point` what its Wi-Fi met,
    `unplugged` whether the wire's cable was out until the login prompt came.
    """

    cluster: str
    node: str
    build: str | None
    machine: str
    accel: str
    artifact: Path
    disk_size: int
    cmdline: str
    additions: tuple[str, ...]
    console: Path
    timings: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] | None = None
    error: str | None = None
    silent: str | None = None
    stamp: Path | None = None
    access_point: str | None = None
    unplugged: bool = False

    @property
    def failed(self) -> list[Finding]:
        """The promises that were not kept."""
        return [finding for finding in self.findings if finding.ok is False]

    @property
    def ok(self) -> bool:
        """Whether it went to the end and every promise that could be asked was kept."""
        return self.error is None and not self.failed

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without anything secret."""
        return {
            "version": VERSION,
            "ok": self.ok,
            **asdict(self),
            "artifact": str(self.artifact),
            "stamp": str(self.stamp) if self.stamp else None,
            "console": str(self.console),
            "additions": list(self.additions),
            "not_rehearsed": list(NOT_REHEARSED),
        }

    def write(self, path: Path) -> None:
        """Write the report whole or not at all."""
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        draft.replace(path)

    def check(self, report: Path) -> None:
        """Raise a `RehearsalError` that says in words what did not come or was not as promised."""
        if self.error is not None:
            raise RehearsalError(self.error, hint=f"the whole console is in {self.console}")
        if self.failed:
            lines = "".join(
                f"\n    {finding.name}: expected {finding.expected}; found {finding.found}"
                for finding in self.failed
            )
            count = f"{len(self.failed)} of {len(self.findings)} checks failed"
            raise RehearsalError(
                f"`{self.node}` came up, but {count}{lines}",
                hint=f"everything that was found is in {report}, the console in {self.console}",
            )
