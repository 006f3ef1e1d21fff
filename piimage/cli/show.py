"""`piimage show`: what cluster.yaml comes to for one node, and where each value is from."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from piimage.cli.options import CLUSTER, Source
from piimage.cli.table import room

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.explain import Field, Value

_NOTHING = "-"
#: A value longer than this pushes its own origin to the right, not those of all others.
_WIDE = 44
#: What a value is given at least on a terminal that has no room for it.
_LEAST = 20


def show(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node, by number or name.")],
    source: Source = CLUSTER,
    *,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for each value where it comes from.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print JSON, with the origins.")
    ] = False,
) -> None:
    """Show every field of a node as it was resolved; secrets are not among them.

    Example: piimage show node3 --explain
    """
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import chosen, load_all  # noqa: PLC0415 -- start-up time
    from piimage.explain import of_cluster, of_node  # noqa: PLC0415 -- start-up time

    loaded = load_all(source, progress_for(json_output=json_output), check_secrets=False)
    (found,) = chosen(loaded.cluster, [node])
    own, shared = of_node(loaded, found), of_cluster(loaded)
    if json_output:
        fields = [_as_json(field) for field in (*own, *shared)]
        print(json.dumps({"node": found.name, "fields": fields}, indent=2))  # noqa: T201 -- cli prints
        return
    prefix = f"nodes[{found.number}]."
    _print_part(
        f"{found.name}: node {found.number} of `{loaded.cluster.name}`", own, prefix, explain
    )
    print()  # noqa: T201 -- cli prints
    _print_part("on all nodes", shared, "", explain)


def _print_part(title: str, fields: Sequence[Field], prefix: str, explain: bool) -> None:  # noqa: FBT001 -- of the command line
    rows: list[tuple[str, str, str]] = []
    for field in fields:
        name = field.path.removeprefix(prefix)
        rows += _explained(name, field) if explain else [(name, _text(field.value), "")]
    names = max(len(name) for name, _, _ in rows)
    values = max(len(value) for _, value, _ in rows if len(value) <= _WIDE)
    columns = room()
    lines: list[str] = []
    for name, value, origin in rows:
        left = columns - len(f"  {'':{names}}    {origin}") if columns else len(value)
        first, *more = _wrapped(value, max(left, _LEAST))
        lines.append(f"  {name:{names}}  {first:{values}}  {origin}".rstrip())
        lines += [f"  {'':{names}}  {line}" for line in more]
    print("\n".join([title, *lines]))  # noqa: T201 -- cli prints


def _wrapped(value: str, width: int) -> list[str]:
    """A value on as many lines as it takes; a word is never broken."""
    found = textwrap.wrap(value, width, break_long_words=False, break_on_hyphens=False)
    return found if len(value) > width and found else [value]


def _explained(name: str, field: Field) -> Iterator[tuple[str, str, str]]:
    """One row; one for each entry of a list to which several places have added."""
    if isinstance(field.value, tuple) and len(set(field.entries)) > 1:
        for index, (value, origin) in enumerate(zip(field.value, field.entries, strict=True)):
            yield f"{name}[{index}]", _text(value), origin
    else:
        yield name, _text(field.value), field.entries[0] if field.entries else field.origin


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _NOTHING if value in (None, "") else str(value)


def _as_json(field: Field) -> dict[str, object]:
    found: dict[str, object] = {
        "field": field.path,
        "value": list(field.value) if isinstance(field.value, tuple) else field.value,
        "origin": field.origin,
    }
    if isinstance(field.value, tuple):
        found["entries"] = list(field.entries)
    return found
