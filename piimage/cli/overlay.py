"""`piimage overlay`: the overlays that a cluster.yaml can name, what each writes, and its tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piimage.cli.options import CLUSTER, Json, SourceOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.cluster import OverlayFile
    from piimage.spec.overlays import Loaded

app = typer.Typer(
    help="Overlays, files for the root of nodes: list, show, test.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of an overlay.")]


@app.command("list", short_help="List those that ship and those beside cluster.yaml.")
def list_(*, cluster: SourceOption = CLUSTER, json_output: Json = False) -> None:
    """List the overlays that ship with piimage and those beside cluster.yaml.

    Example: piimage overlay list
    """
    from piimage.cli.table import described, room  # noqa: PLC0415 -- start-up time
    from piimage.spec.overlays import Rack  # noqa: PLC0415 -- start-up time

    names = Rack(cluster.parent).names()
    found = [_get(cluster, name) for name in names]
    if json_output:
        print(json.dumps([_as_json(each) for each in found], indent=2))  # noqa: T201 -- cli prints
        return
    rows = [("NAME", "FROM", "FILES", "DESCRIPTION")]
    rows += [
        (each.overlay.name, each.origin, str(len(each.overlay.files)), each.description)
        for each in found
    ]
    print("\n".join(described(rows, room())))  # noqa: T201 -- cli prints


@app.command()
def show(
    name: _Name,
    *,
    cluster: SourceOption = CLUSTER,
    node: Annotated[
        str | None,
        typer.Option("--node", "-n", metavar="NODE", help="What it writes on this node, in full."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Show what an overlay writes and what its templates use.

    Example: piimage overlay show motd
    """
    loaded = _get(cluster, name)
    if node is not None:
        files = _on_node(loaded, cluster, node)
        if json_output:
            print(json.dumps(files, indent=2))  # noqa: T201 -- cli prints
            return
        for path, content in files.items():
            print(f"{path}\n{content}")  # noqa: T201 -- cli prints
        return
    if json_output:
        print(json.dumps(_as_json(loaded), indent=2))  # noqa: T201 -- cli prints
        return
    print("\n".join(_shown(loaded)))  # noqa: T201 -- cli prints


@app.command("test", short_help="Compare what one writes with what its tests expect.")
def compare(
    name: _Name,
    *,
    cluster: SourceOption = CLUSTER,
    update: Annotated[
        bool, typer.Option("--update", help="Write what is expected anew, from what is.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Compare what an overlay writes with what its own tests expect; exit 4 when it differs.

    Example: piimage overlay test motd
    """
    from piimage.errors import ExitCode  # noqa: PLC0415 -- start-up time
    from piimage.plan.overlay_tests import run  # noqa: PLC0415 -- start-up time

    outcomes = run(_get(cluster, name), update=update)
    if json_output:
        told = [{"case": each.case, "wrong": list(each.wrong)} for each in outcomes]
        print(json.dumps(told, indent=2))  # noqa: T201 -- cli prints
    else:
        for each in outcomes:
            print(f"{each.case}: {'differs' if each.wrong else 'as expected'}")  # noqa: T201 -- cli prints
            for line in each.wrong:
                print(f"    {line}")  # noqa: T201 -- cli prints
    if any(each.wrong for each in outcomes):
        raise typer.Exit(ExitCode.VERIFY_FAILED)


def _get(cluster: Path, name: str) -> Loaded:
    """An overlay that is there; raises `ConfigError` with all that is wrong in it."""
    from piimage.errors import ConfigError  # noqa: PLC0415 -- start-up time
    from piimage.report import shown  # noqa: PLC0415 -- start-up time
    from piimage.spec.overlays import Rack  # noqa: PLC0415 -- start-up time
    from piimage.spec.profiles import suggestion  # noqa: PLC0415 -- start-up time

    rack = Rack(cluster.parent)
    if not rack.has(name):
        raise ConfigError(
            f"there is no overlay {shown(name)}", hint=suggestion(name, rack.names(), "overlays")
        )
    loaded = rack.get(name)
    if loaded is None or rack.findings:
        raise ConfigError(f"overlay `{name}` is not valid", diagnostics=rack.findings)
    return loaded


def _on_node(loaded: Loaded, source: Path, name: str) -> dict[str, str]:
    """What is in each file on a node of the cluster, as far as the base is known by the base's own words."""
    from piimage.bases.known import known_facts  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import chosen, load_all  # noqa: PLC0415 -- start-up time
    from piimage.components.overlays import words_of  # noqa: PLC0415 -- start-up time
    from piimage.errors import ConfigError  # noqa: PLC0415 -- start-up time
    from piimage.plan.overlay_tests import OS, written  # noqa: PLC0415 -- start-up time
    from piimage.progress import Quiet  # noqa: PLC0415 -- start-up time

    cluster = load_all(source, Quiet(), check_secrets=False).cluster
    (node,) = chosen(cluster, [name])
    if loaded.overlay.name not in node.role.overlays:
        raise ConfigError(
            f"`{node.name}` does not have the overlay `{loaded.overlay.name}`",
            hint=f"it has {', '.join(f'`{each}`' for each in node.role.overlays) or 'none'}",
        )
    facts = known_facts(node.role.base)
    os = OS if facts is None else words_of(facts)
    found = written(cluster, node, loaded.overlay.name, os)
    return {path: content.decode(errors="replace") for path, content in found.items()}


def _shown(loaded: Loaded) -> Iterator[str]:
    from piimage.cli.table import aligned  # noqa: PLC0415 -- start-up time

    overlay = loaded.overlay
    yield f"{overlay.name}  {loaded.origin}, {loaded.directory}"
    if loaded.description:
        yield f"  {loaded.description}"
    for label, words in (
        ("packages", overlay.packages),
        ("enables", overlay.enable),
        ("disables", overlay.disable),
        ("masks", overlay.mask),
        ("replaces", overlay.replaces),
        ("removes", overlay.removes),
    ):
        if words:
            yield f"  {label:<9} {', '.join(words)}"
    rows = [
        (f"  {file.path}", f"{file.mode:04o}", _owner(file), _kind(file)) for file in overlay.files
    ]
    yield from aligned(rows)


def _owner(file: OverlayFile) -> str:
    owner = file.owner or "-"
    return f"{owner}:{file.group}" if file.group else owner


def _kind(file: OverlayFile) -> str:
    if file.kind == "link":
        return f"link to {file.target}"
    if file.kind != "template":
        return "directory" if file.kind == "dir" else "file"
    names = ", ".join(_variables(file)) or "nothing"
    return f"template{' for each node' * file.per_node}, uses {names}"


def _variables(file: OverlayFile) -> tuple[str, ...]:
    from piimage.spec.templates import variables  # noqa: PLC0415 -- start-up time

    return variables(file.content) if file.kind == "template" else ()


def _as_json(loaded: Loaded) -> dict[str, object]:
    overlay = loaded.overlay
    return {
        "name": overlay.name,
        "from": loaded.origin,
        "directory": str(loaded.directory),
        "description": loaded.description,
        "packages": list(overlay.packages),
        "enable": list(overlay.enable),
        "disable": list(overlay.disable),
        "mask": list(overlay.mask),
        "replaces": list(overlay.replaces),
        "removes": list(overlay.removes),
        "files": [
            {
                "path": file.path,
                "kind": file.kind,
                "mode": f"{file.mode:04o}",
                "owner": file.owner,
                "group": file.group,
                "per_node": file.per_node,
                "uses": list(_variables(file)),
            }
            for file in overlay.files
        ],
    }
