"""A preview as plain data: what `piimage plan` prints, `--json` gives and a build keeps to compare with later.

No secret is in it: variants have none, and stand-ins take the place of those of stamps.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeAlias

from piimage.plan.diffs import diff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.facts import Facts, FileFact
    from piimage.plan.changes import Change
    from piimage.preview.preview import Preview, VariantPreview

VERSION = 1
Record: TypeAlias = dict[str, Any]
_PASSWD_FIELDS = 7


def record(preview: Preview, *, diffs: bool = True) -> Record:
    """The whole preview; without `diffs`, files have the digest of what they hold alone."""
    return {
        "version": VERSION,
        "cluster": preview.cluster.name,
        "all_nodes": [node.name for node in preview.cluster.nodes],
        "variants": [_variant(found, diffs=diffs) for found in preview.variants],
        "nodes": [
            {
                "name": found.node.name,
                "number": found.node.number,
                "role": found.node.role.name,
                "variant": found.variant,
                "build": found.build,
                "files": [_file(change, diffs=diffs) for change in found.changes],
            }
            for found in preview.nodes
        ],
    }


def _variant(found: VariantPreview, *, diffs: bool) -> Record:
    packages = None if found.packages is None else {p.name: p.version for p in found.packages}
    return {
        "role": found.role.name,
        "nodes": list(found.nodes),
        "id": found.id,
        "exact": found.exact,
        "base": {"name": found.base.name, "id": found.base.id},
        "wanted": dict(found.wanted),
        "packages": packages,
        "packages_removed": list(found.removed),
        "users": list(_accounts(found.changes)),
        "units": _units(found),
        "waits_for_first_boot": list(found.plan.deferred),
        "waits_for_packages": dict(found.waiting),
        "files": [_file(change, diffs=diffs) for change in found.changes],
    }


def _file(change: Change, *, diffs: bool) -> Record:
    fact = change.after or change.before
    assert fact is not None  # noqa: S101 -- there is no change between nothing and nothing
    found: Record = {
        "path": change.path,
        "action": change.action,
        "kind": fact.kind,
        "component": change.owner,
        "mode": f"{fact.mode:04o}",
        "uid": fact.uid,
        "gid": fact.gid,
        "slot": change.slot,
        "sha256": _digest(change.after),
    }
    if diffs:
        unknown = change.slot and change.after is not None and change.after.content is None
        found["diff"] = [] if unknown else diff(change)
    return found


def _digest(fact: FileFact | None) -> str | None:
    """Of what a file or a link holds."""
    if fact is None or (fact.content is None and fact.target is None):
        return None
    content = fact.content if fact.content is not None else (fact.target or "").encode()
    return hashlib.sha256(content).hexdigest()


def _accounts(changes: tuple[Change, ...]) -> Iterator[Record]:
    """What happens to the accounts of /etc/passwd, by name."""
    for change in changes:
        if change.path == "/etc/passwd" and change.after is not None:
            before, after = _passwd(change.before), _passwd(change.after)
            for name in dict.fromkeys((*before, *after)):
                old, new = before.get(name), after.get(name)
                if old != new:
                    action = "add" if old is None else "change" if new is not None else "remove"
                    yield {"name": name, "uid": new if new is not None else old, "action": action}


def _passwd(fact: FileFact | None) -> dict[str, int]:
    lines = fact.text.splitlines() if fact else []
    rows = [line.split(":") for line in lines]
    return {r[0]: int(r[2]) for r in rows if len(r) == _PASSWD_FIELDS and r[2].isdigit()}


def _units(found: VariantPreview) -> dict[str, str]:
    """Units whose state in the base is another than the one that is wanted."""
    return {
        name: wish for name, wish in found.plan.units.items() if not _is(name, wish, found.facts)
    }


def _is(name: str, wish: str, facts: Facts) -> bool:
    unit = facts.units.get(name)
    if unit is None:
        return wish == "disable"
    if wish == "mask":
        return unit.masked
    return unit.enabled == (wish == "enable")
