"""`piimage doctor`: what this machine can do, how, and what it lacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from piimage.doctor import Diagnosis

_WIDTH = 14


def doctor(
    *,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine can do, in which way and why, and what is missing.

    Example: piimage doctor
    """
    from piimage.bases.cache import Cache  # noqa: PLC0415 -- start-up time
    from piimage.doctor import examine  # noqa: PLC0415 -- start-up time
    from piimage.errors import ExitCode  # noqa: PLC0415 -- start-up time

    found = examine(Cache())
    if json_output:
        print(json.dumps(_as_json(found), indent=2))  # noqa: T201 -- cli prints
    else:
        _tell(found)
    if not found.ok:
        raise typer.Exit(ExitCode.MISSING_TOOL)


def _tell(found: Diagnosis) -> None:
    """One line for what can be done, one for each thing that is missing, and one command."""
    from piimage.cli.console import human  # noqa: PLC0415 -- start-up time
    from piimage.doctor import ENOUGH  # noqa: PLC0415 -- start-up time

    for purpose in found.purposes:
        _line(purpose.name, purpose.how if purpose.ok else "not here")
        for lack in purpose.lacks:
            cure = f" ({lack.cure})" if lack.cure else ""
            _line("", f"missing: {lack.what}{cure}")
    _line(
        "own kernel",
        f"Linux {found.kernel}" if found.kernel else "fetched when the engine `vm` is first used",
    )
    little = ", soon full" if found.free < ENOUGH else ""
    _line("cache", f"{found.cache}, {human(found.free)} free{little}")
    if found.packages:
        print(f"next: `{_install(found)}`")  # noqa: T201 -- cli prints


def _install(found: Diagnosis) -> str:
    return f"sudo apt-get install {' '.join(found.packages)}"


def _line(name: str, text: str) -> None:
    print(f"{name:{_WIDTH}}{text}")  # noqa: T201 -- cli prints


def _as_json(found: Diagnosis) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415 -- start-up time

    engine = found.engine
    return {
        "ok": found.ok,
        "purposes": [{**asdict(purpose), "ok": purpose.ok} for purpose in found.purposes],
        "engine": {"name": engine.name, "reason": engine.reason} if engine else None,
        "accelerator": asdict(found.accelerator),
        "kernel": found.kernel,
        "cache": {"path": str(found.cache), "free": found.free},
        "install": _install(found) if found.packages else None,
    }
