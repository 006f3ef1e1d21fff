"""`piimage profile`: the profiles that a cluster.yaml can name, and what each says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piimage.cli.options import CLUSTER, Json, SourceOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.spec.profiles import Loaded, Shelf

app = typer.Typer(
    help="Profiles of roles and boards: list, show.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list", short_help="List those that ship and those beside cluster.yaml.")
def list_(*, cluster: SourceOption = CLUSTER, json_output: Json = False) -> None:
    """List the profiles that ship with piimage and those beside cluster.yaml.

    Example: piimage profile list
    """
    from piimage.cli.table import described, room  # noqa: PLC0415 -- start-up time
    from piimage.spec.profiles import KINDS, Shelf  # noqa: PLC0415 -- start-up time

    shelf = Shelf(cluster.parent)
    found = [(kind, name, _get(shelf, kind, name)) for kind in KINDS for name in shelf.names(kind)]
    if json_output:
        print(json.dumps([_as_json(*each) for each in found], indent=2))  # noqa: T201 -- cli prints
        return
    rows = [("NAME", "FROM", "DESCRIPTION")]
    rows += [
        (f"{kind}/{name}", _origin(loaded), loaded.traits.description)
        for kind, name, loaded in found
    ]
    print("\n".join(described(rows, room())))  # noqa: T201 -- cli prints


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="`role/NAME`, `board/NAME`, or `NAME` for a role's."),
    ],
    *,
    cluster: SourceOption = CLUSTER,
    json_output: Json = False,
) -> None:
    """Show what a profile says, and in which line of which file.

    Example: piimage profile show board/pi4
    """
    from piimage.cli.table import aligned  # noqa: PLC0415 -- start-up time
    from piimage.errors import ConfigError  # noqa: PLC0415 -- start-up time
    from piimage.report import shown  # noqa: PLC0415 -- start-up time
    from piimage.spec.profiles import KINDS, Shelf, split, suggestion  # noqa: PLC0415 -- same

    shelf = Shelf(cluster.parent)
    kind, bare = split(name)
    if kind not in KINDS or not shelf.has(kind, bare):
        known = [f"{each}/{other}" for each in KINDS for other in shelf.names(each)]
        same = next((other for other in known if other.endswith(f"/{name}")), None)
        raise ConfigError(
            f"there is no profile {shown(name)}",
            hint=f"did you mean `{same}`?" if same else suggestion(name, known, "profiles"),
        )
    loaded = _get(shelf, kind, bare)
    if json_output:
        print(json.dumps(_as_json(kind, bare, loaded), indent=2))  # noqa: T201 -- cli prints
        return
    print(f"{kind}/{bare}  {loaded.document.file}")  # noqa: T201 -- cli prints
    rows = [(f"  {field}", text, f"line {line}") for field, text, line in _fields(loaded)]
    print("\n".join(aligned(rows) or ["  sets nothing"]))  # noqa: T201 -- cli prints


def _get(shelf: Shelf, kind: str, name: str) -> Loaded:
    """A profile that is there; raises `ConfigError` with all that is wrong in it."""
    from piimage.errors import ConfigError  # noqa: PLC0415 -- start-up time

    loaded = shelf.get(kind, name)
    if loaded is None or shelf.findings:
        raise ConfigError(f"profile `{kind}/{name}` is not valid", diagnostics=shelf.findings)
    return loaded


def _origin(loaded: Loaded) -> str:
    """`shipped` or `beside cluster.yaml`, from the label."""
    return loaded.label.partition("(")[2].rstrip(")")


def _fields(loaded: Loaded) -> Iterator[tuple[str, str, int]]:
    """What is written in the file, with its line."""
    for name in type(loaded.traits).model_fields:
        if name in loaded.traits.model_fields_set:
            value = getattr(loaded.traits, name)
            line = loaded.document.span((name,), key=True).line + 1
            yield name, ", ".join(value) if isinstance(value, list) else _word(value), line


def _word(value: Any) -> str:  # noqa: ANN401 -- of any field
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(getattr(value, "value", value))


def _as_json(kind: str, name: str, loaded: Loaded) -> dict[str, object]:
    written: Sequence[str] = sorted(loaded.traits.model_fields_set)
    values = {field: getattr(loaded.traits, field) for field in written}
    return {
        "kind": kind,
        "name": name,
        "from": _origin(loaded),
        "file": loaded.document.file,
        "sets": {
            field: value if isinstance(value, (bool, list)) else _word(value)
            for field, value in values.items()
        },
    }
