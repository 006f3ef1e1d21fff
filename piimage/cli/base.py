"""`piimage base`: what images there are to start from, and how to have one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piimage.cli import base_pull
from piimage.cli.console import progress_for
from piimage.cli.examples import further
from piimage.cli.options import Json
from piimage.cli.table import described, room
from piimage.distros.system import recognise
from piimage.errors import PiimageError
from piimage.progress import human

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.progress import Progress

app = typer.Typer(
    help="Images to start from: list, show, make, pull, import, remove.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_SHORT = 12


@app.command("list", short_help="List the bases that are here, and those that can be had.")
def list_(
    *,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="First ask publishers for their newest lists.")
    ] = False,
    json_output: Json = False,
) -> None:
    """List the bases that are here, and those that can be made or pulled.

    Example: piimage base list
    """
    store = _store(json_output=json_output)
    if refresh:
        _refresh(store, progress_for(json_output=json_output))
    rows = _listing(store)
    if json_output:
        _print_json(rows)
        return
    table = [("NAME", "HOW", "HERE", "SIZE", "ID", "DESCRIPTION")]
    for row in rows:
        size = human(row["size"]) if row["present"] else "-"
        here = "yes" if row["present"] else "no"
        short = (row["id"] or "-")[:_SHORT]
        table.append((row["name"], row["how"], here, size, short, row["description"]))
    _print_table(table)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a base, or path of an image.")
    ],
    *,
    json_output: Json = False,
) -> None:
    """Show what a base holds.

    Example: piimage base show debian-13
    """
    base = _store(json_output=json_output).base(name)
    show_base(base, json_output=json_output)


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An .img, .img.xz, .img.gz, .img.zst, .zip or .qcow2."),
    ],
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it. [default: after the file]")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Refuse the file unless it has this sha256.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Take an image file in as a base; the file itself is not modified.

    Example: piimage base import lite.img.xz --name lite
    """
    from piimage.bases.importing import import_base  # noqa: PLC0415 -- start-up time

    store = _store(json_output=json_output)
    progress = progress_for(json_output=json_output)
    base = import_base(file, store=store, progress=progress, name=name, sha256=sha256)
    show_base(base, json_output=json_output)


@app.command()
def make(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name that `piimage base list` shows as `make`.")
    ],
    *,
    force: Annotated[bool, typer.Option("--force", help="Make it again if it is here.")] = False,
    json_output: Json = False,
) -> None:
    """Make a base from the host's package archive.

    Example: piimage base make debian-13
    """
    from piimage.bases.catalog import entries  # noqa: PLC0415 -- start-up time
    from piimage.bases.make import make as make_base  # noqa: PLC0415 -- start-up time

    known = [entry.name for entry in entries(Path()).values() if entry.obtain == "make"]
    if name not in known:
        raise PiimageError(
            f"`{name}` is not a base that can be made",
            hint=f"one of: {', '.join(f'`{other}`' for other in known)}; "
            "an image file comes in with `piimage base import FILE`",
        )
    store = _store(json_output=json_output)
    progress = progress_for(json_output=json_output)
    base = make_base(name, store=store, progress=progress, force=force)
    show_base(base, json_output=json_output)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a base that is here.")],
    *,
    json_output: Json = False,
) -> None:
    """Take a base away; images that were built from it stay as they are.

    Example: piimage base remove debian-13
    """
    gone = _store(json_output=json_output).remove(name)
    if json_output:
        _print_json({"removed": gone.name, "id": gone.id})
    else:
        print(f"removed base `{gone.name}`")  # noqa: T201 -- cli prints


app.command(
    short_help="Download a published image, and check who signed it.", epilog=further("base pull")
)(base_pull.pull)
app.command(short_help="Keep a publisher's key for `base pull`.", epilog=further("base trust"))(
    base_pull.trust
)


def show_base(base: Base, *, json_output: bool) -> None:
    """Print what a base holds."""
    if json_output:
        _print_json(_summary(base))
    else:
        _print_base(base)


def _store(*, json_output: bool) -> Store:
    from piimage.bases.store import Store  # noqa: PLC0415 -- start-up time

    return Store(progress=progress_for(json_output=json_output))


def _refresh(store: Store, progress: Progress) -> None:
    from piimage.bases import image_list, publishers  # noqa: PLC0415 -- start-up time

    known, _ = publishers.read_all(Path())
    count = image_list.refresh(known.values(), store, progress)
    progress.say(f"the publishers' own lists name {count} images")


def _listing(store: Store) -> list[dict[str, Any]]:
    """One row per base that is here or in the catalog, by name."""
    from piimage.bases.catalog import entries  # noqa: PLC0415 -- start-up time

    catalog = entries(Path())
    present = {record.name: record for record in store.records()}
    rows = []
    for name in sorted({*catalog, *present}):
        entry, record = catalog.get(name), present.get(name)
        how = entry.obtain if entry else "import"
        described = entry.description if entry else ""
        if record is not None:
            how = record.origin.kind
            described = described or f"from {record.origin.source}"
        rows.append(
            {
                "name": name,
                "how": how,
                "present": record is not None,
                "size": record.size if record else None,
                "id": record.id if record else None,
                "made_at": record.origin.at if record else None,
                "description": described,
            }
        )
    return rows


def _summary(base: Base) -> dict[str, Any]:
    """What `show --json` prints: no contents of files, since some hold password hashes."""
    from dataclasses import asdict  # noqa: PLC0415 -- start-up time

    facts = base.facts
    return {
        "name": base.name,
        "id": base.id,
        "path": str(base.path),
        "origin": asdict(base.origin),
        "tools": dict(base.tools),
        "os": asdict(facts.os),
        "system": recognise(facts).words,
        "architecture": facts.architecture,
        "table": asdict(facts.table),
        "mounts": dict(facts.mounts),
        "firmware": facts.firmware,
        "network_stack": facts.network_stack,
        "rpi_issue": facts.rpi_issue,
        "kernels": list(facts.kernels),
        "cloud_init": facts.cloud_init,
        "made": facts.made,
        "locales": sorted(facts.locales),
        "units": {
            "enabled": sorted(name for name, unit in facts.units.items() if unit.enabled),
            "masked": sorted(name for name, unit in facts.units.items() if unit.masked),
        },
        "packages": dict(facts.packages),
    }


def _print_base(base: Base) -> None:
    facts = base.facts
    system = recognise(facts)  # Raspberry Pi OS for 64 bit calls itself Debian
    counts = Counter(
        "enabled" if unit.enabled else "masked" if unit.masked else "other"
        for unit in facts.units.values()
    )
    lines = [
        ("name", base.name),
        ("id", base.id),
        ("image", f"{base.path} ({human(facts.table.size)})"),
        ("origin", f"{base.origin.kind} from {base.origin.source} at {base.origin.at}"),
        ("system", system.words if system.kind == "raspios" else facts.os.pretty or system.words),
        ("architecture", facts.architecture),
        ("partitions", ", ".join(_partitions(base))),
        ("firmware", facts.firmware),
        ("network", facts.network_stack),
        ("kernels", ", ".join(facts.kernels) or "none"),
        ("cloud-init", facts.cloud_init or "none"),
        ("packages", str(len(facts.packages))),
        ("units", f"{counts['enabled']} enabled, {counts['masked']} masked"),
    ]
    _print_table(lines)


def _partitions(base: Base) -> Iterable[str]:
    places = {number: place for place, number in base.facts.mounts.items()}
    for part in base.facts.table.holders:
        kind = part.filesystem.type if part.filesystem else f"type {part.type}"
        place = places.get(part.number)
        yield f"{part.volume or part.number} {kind} {human(part.size)}" + (
            f" on {place}" if place else ""
        )


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as needed; control characters of an image do not reach the terminal."""
    clean = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in rows]
    typer.echo("\n".join(described(clean, room())))
