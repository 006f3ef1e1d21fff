"""The tests that lie in an overlay: what its files must hold on which node of which cluster.

NAME/tests/CASE/cluster.yaml           names the overlay
NAME/tests/CASE/expected/NODE/PATH     what PATH must hold on that node; all that the overlay writes there, no more
"""

from __future__ import annotations

import difflib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage import resolve
from piimage.components import overlays
from piimage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.cluster import Cluster, Node
    from piimage.spec.overlays import Loaded

EXPECTED = "expected"
#: Templates are tried without an image; this is what they are told of it.
OS = overlays.os_words("debian", "13", "trixie", "arm64", "/boot/firmware")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case: what is not as expected, as lines to read; none when it passed."""

    case: str
    wrong: tuple[str, ...]


def run(loaded: Loaded, *, update: bool = False) -> tuple[Outcome, ...]:
    """All cases of an overlay, by name; with `update`, what is expected is written anew.

    Raises `ConfigError` for an overlay without cases, and what `resolve.load` raises for the cluster.yaml of a case.
    """
    cases = sorted(loaded.directory.glob("tests/*/cluster.yaml"))
    if not cases:
        raise ConfigError(
            f"overlay `{loaded.overlay.name}` has no tests",
            hint=f"make `{loaded.directory / 'tests' / 'NAME' / 'cluster.yaml'}`, then run with `--update`",
        )
    return tuple(_case(path, loaded, update=update) for path in cases)


def written(cluster: Cluster, node: Node, name: str, os: Mapping[str, str]) -> dict[str, bytes]:
    """Path -> what overlay `name` writes on a node, links as `-> TARGET`; nothing when the node has not the overlay."""
    shared = overlays.variant_context(cluster, node.role, os)
    own = overlays.node_context(cluster, node, os)
    return {
        file.path: f"-> {file.target}\n".encode()
        if file.kind == "link"
        else overlays.text(file, own if file.per_node else shared)
        for overlay in overlays.used(cluster, node.role)
        if overlay.name == name
        for file in overlay.files
        if file.kind != "dir"
    }


def _case(path: Path, loaded: Loaded, *, update: bool) -> Outcome:
    name, place = loaded.overlay.name, path.parent / EXPECTED
    cluster = resolve.load(
        path, env={}, check_secrets=False, beside=loaded.directory.parent.parent
    ).cluster
    found = {node.name: written(cluster, node, name, OS) for node in cluster.nodes}
    if update:
        _write(place, found)
    wrong: list[str] = []
    if not any(found.values()):
        wrong.append(f"no node of {path} has the overlay")
    nodes = sorted(child.name for child in place.iterdir()) if place.is_dir() else []
    if not nodes:
        wrong.append(f"nothing is expected: {place} is not there")
    for node in nodes:
        if node not in found:
            wrong.append(f"{place / node}: the cluster has no such node")
        else:
            wrong += _differences(place / node, found[node])
    return Outcome(path.parent.name, tuple(wrong))


def _differences(place: Path, found: Mapping[str, bytes]) -> list[str]:
    """What differs from the files below `place`, as unified diffs."""
    expected = {
        f"/{path.relative_to(place)}": path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }
    lines: list[str] = []
    for path in sorted(expected.keys() | found.keys()):
        before, after = expected.get(path), found.get(path)
        if before == after:
            continue
        if before is None or after is None:
            what = "is written and not expected" if before is None else "is expected, not written"
            lines.append(f"{place.name}: {path} {what}")
            continue
        old, new = (text.decode(errors="replace").splitlines() for text in (before, after))
        title = f"{place.name}: {path} (expected)"
        lines += difflib.unified_diff(old, new, title, "as it is", lineterm="")
    return lines


def _write(place: Path, found: Mapping[str, Mapping[str, bytes]]) -> None:
    """The expected files anew: of the nodes that were there, else of all that have the overlay."""
    there = {child.name for child in place.iterdir()} if place.is_dir() else set()
    shutil.rmtree(place, ignore_errors=True)
    for node, files in found.items():
        for path, content in files.items() if not there or node in there else ():
            target = place / node / path.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
