"""`piimage cache`: what the cache holds, and making room."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piimage.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.bases.stock import Item

app = typer.Typer(
    help="What earlier builds left to be quicker next time: list, prune.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_SHORT = 24
_DAY = 86400


@app.command("list", short_help="List what the cache holds, the largest first.")
def list_(*, json_output: Json = False) -> None:
    """List what the cache holds, the largest first; all of it can be had again.

    Example: piimage cache list
    """
    from piimage.bases.cache import Cache  # noqa: PLC0415 -- start-up time
    from piimage.bases.stock import items  # noqa: PLC0415 -- start-up time

    cache = Cache()
    found = items(cache)
    if json_output:
        _print({"directory": str(cache.root), "items": [_as_json(item) for item in found]})
        return
    _table(found)
    print(f"{_total(found)} in {cache.root}")  # noqa: T201 -- cli prints


@app.command(short_help="Take away what no build has used for a while.")
def prune(
    *,
    unused_for: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="What nobody used for so many days goes.")
    ] = 30,
    tools: Annotated[
        bool, typer.Option("--tools", help="Kernels and tools that bakes use, too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go; take nothing away.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Take away variants, baked bases and packages that no build used lately; bases stay.

    Example: piimage cache prune --unused-for 7 --dry-run
    """
    from piimage.bases import stock  # noqa: PLC0415 -- start-up time
    from piimage.bases.cache import Cache  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time

    cache = Cache(progress=progress_for(json_output=json_output))
    if dry_run:
        found = stock.prunable(stock.items(cache), days=unused_for, tools=tools)
    else:
        found = stock.prune(cache, days=unused_for, tools=tools) if cache.root.exists() else ()
    if json_output:
        _print({"dry_run": dry_run, "items": [_as_json(item) for item in found]})
        return
    if dry_run and found:
        _table(found)
    print(f"{'would free' if dry_run else 'freed'} {_total(found)}")  # noqa: T201 -- cli prints


def _table(found: Sequence[Item]) -> None:
    from piimage.cli.table import aligned, room  # noqa: PLC0415 -- start-up time
    from piimage.progress import human  # noqa: PLC0415 -- start-up time

    packages = [item for item in found if item.kind == "package"]
    rows = [("KIND", "NAME", "SIZE", "LAST USED")]
    rows += [
        (item.kind, item.name[:_SHORT], human(item.size), _ago(item.used))
        for item in found
        if item.kind != "package"
    ]
    if packages:
        size, used = sum(p.size for p in packages), max(p.used for p in packages)
        rows.append(("packages", str(len(packages)), human(size), _ago(used)))
    print("\n".join(aligned(rows, room())))  # noqa: T201 -- cli prints


def _total(found: Sequence[Item]) -> str:
    from piimage.progress import human  # noqa: PLC0415 -- start-up time

    return human(sum(item.size for item in found))


def _ago(used: float) -> str:
    days = int((time.time() - used) // _DAY)
    return {0: "today", 1: "yesterday"}.get(days, f"{days} days ago")


def _as_json(item: Item) -> dict[str, Any]:
    used = datetime.fromtimestamp(item.used, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "kind": item.kind,
        "name": item.name,
        "path": str(item.path),
        "size": item.size,
        "used": used,
    }


def _print(data: object) -> None:
    print(json.dumps(data, indent=2))  # noqa: T201 -- cli prints
