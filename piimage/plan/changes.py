"""What a Delta changes in a tree that Facts describe: one entry per path that differs before and after.

`changes` is what `piimage plan` shows and what a build does to the image, no more and no less: a path that already
is as the Delta wants it is not in it. Times are not compared. On FAT, which has neither, modes and owners are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from piimage.delta import Absent, Directory, File, Slot, Symlink, Tree
from piimage.facts import FileFact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from piimage.delta import Delta, Entry
    from piimage.facts import Facts

#: What is at paths of a tree, before or after.
_Files: TypeAlias = dict[str, FileFact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path. `owner` is the component that claims it; `slot` when each node has content of its own there."""

    path: str
    owner: str
    before: FileFact | None
    after: FileFact | None
    slot: bool = False

    @property
    def action(self) -> str:
        """`add`, `change` or `remove`."""
        if self.before is None:
            return "add"
        return "remove" if self.after is None else "change"


def changes(
    delta: Delta, facts: Facts, filled: Mapping[str, bytes] | None = None
) -> tuple[Change, ...]:
    """All changes, by path.

    `facts.files` must know every path of `delta`, what lies below each that goes or moves, and whatever changes
    its owner. `filled` is what slots hold, where that is known; else they are compared by kind, mode and owner.
    """
    before: _Files = dict(facts.files)
    after: _Files = dict(before)
    owners: dict[str, str] = {}
    _trees(delta, after, owners)
    for path, entry in delta:
        if isinstance(entry, Absent):
            for gone in [path, *_below(path, after)]:
                if after.pop(gone, None) is not None:
                    owners[gone] = delta.owners[path]
    for path, entry in delta:
        if not isinstance(entry, Absent | Tree):
            _write(path, _made(entry, (filled or {}).get(path)), after, owners, delta.owners[path])
    firmware, slots = facts.firmware + "/", delta.slots
    return tuple(
        Change(
            path=path,
            owner=owners.get(path, ""),
            before=before.get(path),
            after=after.get(path),
            slot=path in slots,
        )
        for path in sorted(before.keys() | after.keys(), key=lambda path: path.split("/"))
        if _differs(before.get(path), after.get(path), bare=path.startswith(firmware))
    )


def _trees(delta: Delta, after: _Files, owners: dict[str, str]) -> None:
    """What comes first: trees move, then numbers change, all at once."""
    trees = [(path, entry) for path, entry in delta if isinstance(entry, Tree)]
    for path, tree in trees:
        _move(path, tree, after, owners, delta.owners[path])
    if trees:
        _renumber([tree for _, tree in trees], after, owners, delta.owners[trees[0][0]])


def _write(path: str, made: FileFact, after: _Files, owners: dict[str, str], owner: str) -> None:
    """What is written takes the place of what is there, of a directory with all that is in it."""
    there = after.get(path)
    if there is not None and there.kind == "dir" and made.kind != "dir":
        for gone in _below(path, after):
            del after[gone]
            owners[gone] = owner
    after[path] = made
    owners[path] = owner


def _move(path: str, tree: Tree, after: _Files, owners: dict[str, str], owner: str) -> None:
    """The tree at its new place."""
    if tree.source == path:
        return
    for old in [tree.source, *_below(tree.source, after)]:
        if old in after:
            new = path + old.removeprefix(tree.source)
            after[new] = after.pop(old)
            owners[old] = owners[new] = owner


def _renumber(trees: Sequence[Tree], after: _Files, owners: dict[str, str], owner: str) -> None:
    """New numbers, all at once, for everything whose old ones go."""
    uids = dict(pair for tree in trees for pair in tree.uid_map)
    gids = dict(pair for tree in trees for pair in tree.gid_map)
    for name, fact in after.items():
        uid, gid = uids.get(fact.uid, fact.uid), gids.get(fact.gid, fact.gid)
        if (uid, gid) != (fact.uid, fact.gid):
            after[name] = replace(fact, uid=uid, gid=gid)
            owners.setdefault(name, owner)


def _below(path: str, files: Mapping[str, FileFact]) -> list[str]:
    return [name for name in files if name.startswith(f"{path}/")]


def _made(entry: Entry, content: bytes | None) -> FileFact:
    """What an entry leaves at its path."""
    match entry:
        case File():
            return FileFact(
                kind="file",
                mode=entry.mode,
                uid=entry.uid,
                gid=entry.gid,
                content=entry.content,
            )
        case Slot():
            return FileFact(
                kind="file", mode=entry.mode, uid=entry.uid, gid=entry.gid, content=content
            )
        case Directory():
            return FileFact(kind="dir", mode=entry.mode, uid=entry.uid, gid=entry.gid)
        case Symlink():
            return FileFact(
                kind="link", mode=0o777, uid=entry.uid, gid=entry.gid, target=entry.target
            )
        case Absent() | Tree():
            raise TypeError(entry)


def _differs(before: FileFact | None, after: FileFact | None, *, bare: bool) -> bool:
    if before is None or after is None:
        return before is not after
    if bare:
        after = replace(after, mode=before.mode, uid=before.uid, gid=before.gid)
    return before != after
