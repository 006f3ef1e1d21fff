"""Two records of plans compared: which variants are made anew, which cards become stale, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from piimage.preview.record import Record

_FATE = ("kind", "mode", "uid", "gid", "sha256")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a variant (by its role) or of a node's card; `why` is empty where it stays as it is."""

    name: str
    why: tuple[str, ...]
    new: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a plan means for what there was. `gone` are nodes that are no more.

    `blind` are nodes of which it is not known whether a key, a password or a passphrase has changed.
    """

    variants: tuple[Fate, ...]
    nodes: tuple[Fate, ...]
    gone: tuple[str, ...]
    blind: tuple[str, ...]

    def to_json(self) -> Record:
        """Plain JSON values."""
        return {
            "variants": [
                {"role": v.name, "made_anew": bool(v.why), "new": v.new, "why": list(v.why)}
                for v in self.variants
            ],
            "nodes": [
                {
                    "name": n.name,
                    "stale": bool(n.why) and not n.new,
                    "new": n.new,
                    "why": list(n.why),
                }
                for n in self.nodes
            ],
            "gone": list(self.gone),
            "secrets_unknown": list(self.blind),
        }


def compare(old: Record, new: Record) -> Comparison:
    """What `new` would make of what was made by `old`; nodes are known by their names."""
    before = {name: variant for variant in old["variants"] for name in variant["nodes"]}
    present = {node["name"]: node for node in old["nodes"]}
    variants: list[Fate] = []
    rebuilt: dict[str, bool] = {}
    for variant in new["variants"]:
        fate = _variant(before, old["variants"], variant)
        variants.append(fate)
        rebuilt |= dict.fromkeys(variant["nodes"], bool(fate.why))
    nodes: list[Fate] = []
    blind: list[str] = []
    own = {node["name"]: node for node in new["nodes"]}
    for name in rebuilt:
        was, now = present.get(name), own.get(name)
        if was is None:
            nodes.append(Fate(name, ("there was none",), new=True))
            continue
        nodes.append(Fate(name, tuple(_node(was, now, before.get(name), rebuilt=rebuilt[name]))))
        if not nodes[-1].why and None in (was.get("build"), now and now.get("build")):
            blind.append(name)
    asked = set(rebuilt)
    gone = tuple(n for n in present if n not in asked and n not in new["all_nodes"])
    return Comparison(tuple(variants), tuple(nodes), gone, tuple(blind))


def written(new: Record, cards: Iterable[tuple[str, str]]) -> dict[str, bool | None]:
    """Node -> whether its card holds what `new` would make; `cards` are names of nodes and builds on their cards.

    None where that cannot be known, since the secrets are not at hand.
    """
    builds = {node["name"]: node["build"] for node in new["nodes"]}
    return {
        name: None if builds[name] is None else builds[name] == build
        for name, build in cards
        if name in builds
    }


def _variant(before: Mapping[str, Record], there: list[Record], variant: Record) -> Fate:
    role = variant["role"]
    if variant["id"] is not None and variant["id"] in {old["id"] for old in there}:
        return Fate(role, ())
    same = (before[name] for name in variant["nodes"] if name in before)
    old = next(same, None) or next((v for v in there if v["role"] == role), None)
    if old is None:
        return Fate(role, ("there was none",), new=True)
    return Fate(role, tuple(_reasons(old, variant)) or ("another version of piimage makes it",))


def _reasons(old: Record, new: Record) -> Iterator[str]:
    yield from made_of(old, new)
    if (old["packages"] is None or new["packages"] is None) and not new["exact"]:
        yield "its packages are not settled yet"
    if new["exact"]:
        yield from _files(old["files"], new["files"])


def made_of(old: Record, new: Record) -> Iterator[str]:
    """How the bases and packages of two variants differ: `base`, `packages` and `wanted` of their records."""
    if old["base"]["name"] != new["base"]["name"]:
        yield f"base `{new['base']['name']}` instead of `{old['base']['name']}`"
    elif old["base"]["id"] != new["base"]["id"]:
        yield f"base `{new['base']['name']}` was made or imported anew"
    if new["packages"] is None or old["packages"] is None:
        yield from _names("package wanted: ", old["wanted"], new["wanted"])
    else:
        yield from _names("package ", old["packages"], new["packages"])


def _names(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{what}+ {name}"
        elif name not in new:
            yield f"{what}- {name}"
        elif old[name] != new[name] and what == "package ":
            yield f"{what}{name}: {old[name]}, now {new[name]}"


def _files(old: list[Record], new: list[Record]) -> Iterator[str]:
    """Paths that a build leaves as another thing than before, each with its component."""
    was, now = ({file["path"]: file for file in files} for files in (old, new))
    for path in sorted(was.keys() | now.keys()):
        first, second = was.get(path), now.get(path)
        if first is None and second is not None:
            yield f"{path} ({second['component']}) changes too"
        elif second is None and first is not None:
            yield f"{path} ({first['component']}) stays as the base has it"
        elif first is not None and second is not None and _fate(first) != _fate(second):
            yield f"{path} ({second['component']})"


def _fate(file: Record) -> tuple[object, ...]:
    return tuple(file[name] for name in _FATE if file["action"] != "remove")


def _node(
    was: Record, now: Record | None, variant: Record | None, *, rebuilt: bool
) -> Iterator[str]:
    if rebuilt:
        yield "its variant is made anew"
    elif now is not None and variant is not None and now["variant"] != variant["id"]:
        yield f"it gets the variant of role `{now['role']}`"
    if now is None or now["variant"] is None or was["variant"] is None:
        return
    files = list(_files(_told(was), _told(now)))
    yield from files
    builds = {was.get("build"), now.get("build")}
    if not (files or rebuilt) and was["variant"] == now["variant"] and len(builds - {None}) > 1:
        yield "a key, a password or a passphrase is another"


def _told(node: Record) -> list[Record]:
    """A node's own files; its label and its meta-data hold ids that follow from all others."""
    return [
        file for file in node["files"] if not file["path"].endswith(("/piimage.json", "/meta-data"))
    ]
