"""Facts about further paths of an image: what a Delta touches and the facts of the base leave out.

Read in user space like all facts; the image is untrusted and only read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.bases.facts_reader import MAX_CONTENT
from piimage.components import overlays
from piimage.delta import Absent, File, Slot, Tree
from piimage.disk import fat
from piimage.disk.rootfs import open_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.cluster import Cluster, Role
    from piimage.delta import Delta
    from piimage.disk.tree import FileTree
    from piimage.facts import Facts, FileFact


def for_changes(facts: Facts, image: Path, delta: Delta) -> Facts:
    """`facts` of the raw `image` with all that `piimage.plan.changes` must know to tell what `delta` changes in it."""
    place = facts.firmware + "/"
    paths = [path for path, _ in delta if not path.startswith(place)]
    trees = [entry for _, entry in delta if isinstance(entry, Tree)]
    root = facts.table.partition(facts.mounts["/"])
    files = dict(facts.files)
    with open_tree(image, root.start) as tree:
        files |= _kept(_named(tree, paths), files)
        whole = [path for path, entry in delta if isinstance(entry, Absent)]
        whole += [tree.source for tree in trees]
        replaced = [p for p in paths if isinstance(delta.entries[p], File | Slot)]
        whole += [p for p in replaced if p in files and files[p].kind == "dir"]
        files |= _kept(tree.list_tree(p for p in whole if not p.startswith(place)), files)
        files |= _kept(_owned(tree, trees), files)
        texts = [p for p in paths if p in files and _unread(files[p])]
        for path, content in tree.read_files(texts, limit=MAX_CONTENT).items():
            files[path] = replace(files[path], content=content)
    return replace(facts, files=files | _firmware(facts, image, delta, files))


def for_overlays(base: Base, cluster: Cluster, role: Role) -> Base:
    """`base` with facts of all that the overlays of `role` touch, which may lie anywhere, and of what is above."""
    paths = overlays.paths(cluster, role)
    if not paths:
        return base
    facts = base.facts
    root = facts.table.partition(facts.mounts["/"])
    with open_tree(base.path, root.start) as tree:
        found = _named(tree, paths)
    return replace(base, facts=replace(facts, files={**found, **facts.files}))


def _kept(found: Mapping[str, FileFact], known: Mapping[str, FileFact]) -> dict[str, FileFact]:
    """What is not known yet: known facts have contents."""
    return {path: fact for path, fact in found.items() if path not in known}


def _named(tree: FileTree, paths: Iterable[str]) -> dict[str, FileFact]:
    """Those paths that are there, and the directories above them."""
    wanted = {
        path[:at] for path in paths for at in range(1, len(path) + 1) if path[at:][:1] in ("", "/")
    }
    return tree.list_tree(sorted(wanted), 0)


def _owned(tree: FileTree, trees: Iterable[Tree]) -> dict[str, FileFact]:
    """Everything with a number that changes, wherever it lies."""
    uids = {old for tree in trees for old, _ in tree.uid_map}
    gids = {old for tree in trees for old, _ in tree.gid_map}
    if not uids | gids:
        return {}
    return {
        path: fact
        for path, fact in tree.list_tree(["/"]).items()
        if fact.uid in uids or fact.gid in gids
    }


def _unread(fact: FileFact) -> bool:
    return fact.kind == "file" and fact.content is None


def _firmware(
    facts: Facts, image: Path, delta: Delta, known: Mapping[str, FileFact]
) -> dict[str, FileFact]:
    """The same for the firmware's partition, whose facts have the names at its top and the text files among them."""
    place = facts.firmware
    paths = [path for path, _ in delta if path.startswith(f"{place}/")]
    if not paths:
        return {}
    start = facts.table.partition(facts.mounts[place]).start
    files = {place + p: fact for p, fact in fat.list_tree(image, start).items() if p != "/"}
    files = {path: known.get(path, fact) for path, fact in files.items()}
    texts = [p.removeprefix(place) for p in paths if p in files and _unread(files[p])]
    contents = fat.read_files(image, start, texts, limit=MAX_CONTENT) if texts else {}
    for name, content in contents.items():
        files[place + name] = replace(files[place + name], content=content)
    return files
