"""`piimage doctor`: what this machine can do, how, and what it lacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piimage.cli.options import Json

if TYPE_CHECKING:
    from piimage.doctor import Diagnosis

_WIDTH = 14


def doctor(
    *,
    programs: Annotated[
        bool, typer.Option("--programs", help="Also say of every program where it is.")
    ] = False,
    json_output: Json = False,
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
        _tell(found, programs=programs)
    if not found.ok:
        raise typer.Exit(ExitCode.MISSING_TOOL)


def _tell(found: Diagnosis, *, programs: bool) -> None:
    """One line for what can be done, one for each thing that is missing, and one command."""
    from piimage.doctor import ENOUGH  # noqa: PLC0415 -- start-up time
    from piimage.progress import human  # noqa: PLC0415 -- start-up time

    _line("system", found.host.name)
    for purpose in found.purposes:
        _line(purpose.name, purpose.how if purpose.ok else "not here")
        for lack in purpose.lacks:
            cure = f" ({lack.cure})" if lack.cure else ""
            _line("", f"missing: {lack.what}{cure}")
        if purpose.name == "bake":
            _other_engines(found)
    _line(
        "own kernel",
        f"Linux {found.kernel}" if found.kernel else "fetched when the engine `vm` is first used",
    )
    little = ", soon full" if found.free < ENOUGH else ""
    _line("cache", f"{found.cache}, {human(found.free)} free{little}")
    here = [path for path in found.programs.values() if path]
    _line("programs", f"{len(here)} of {len(found.programs)} are here")
    if programs:
        for name, path in found.programs.items():
            _line("", f"{name}: {path or 'not here'}")
    if found.install:
        print(f"next: `{found.install}`")  # noqa: T201 -- cli prints
    elif found.packages:
        print(f"next: install what Debian has in: {' '.join(found.packages)}")  # noqa: T201 -- cli prints


def _other_engines(found: Diagnosis) -> None:
    """What `--engine` may say besides, or why not."""
    for engine in found.engines:
        if found.engine is not None and engine.name != found.engine.name:
            _line("", f"{engine.name}: {engine.reason}")


def _line(name: str, text: str) -> None:
    print(f"{name:{_WIDTH}}{text}")  # noqa: T201 -- cli prints


def _as_json(found: Diagnosis) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415 -- start-up time

    engine = found.engine
    return {
        "ok": found.ok,
        "system": asdict(found.host),
        "purposes": [{**asdict(purpose), "ok": purpose.ok} for purpose in found.purposes],
        "engine": {"name": engine.name, "reason": engine.reason} if engine else None,
        "engines": [asdict(each) for each in found.engines],
        "accelerator": asdict(found.accelerator),
        "kernel": found.kernel,
        "cache": {"path": str(found.cache), "free": found.free},
        "programs": dict(found.programs),
        "packages": list(found.packages),
        "install": found.install,
    }
