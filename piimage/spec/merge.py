"""Merge profiles, roles and what a node itself says into one set of traits; keep the origins.

Scalars: the last layer wins. Lists append; a name that is there already is not added again. From
the first to the last: board profile, role profile, the cluster's profiles, the cluster, the role's
profiles, the role, the node's profiles, the node. A profile's own `profiles` come right before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage.spec.profiles import BOARD, ROLE, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from piimage.spec import model
    from piimage.spec.place import FieldPath
    from piimage.spec.profiles import Shelf
    from piimage.spec.references import BaseRef
    from piimage.spec.seats import Seat
    from piimage.spec.source import Document

SCALARS = ("base", "target", "wifi")
#: `config_txt` lines are not compared one by one: `[all]` may rightly stand there twice.
LISTS = ("packages", "overlays", "cmdline", "config_txt")
_REPEATABLE = ("config_txt",)


@dataclass(slots=True)
class Merged:
    """The traits of a node; `origins` maps a field to where its value came from.

    A list has the origin of its last part, and its entries have theirs, as `packages[0]`.
    """

    base: BaseRef | None = None
    target: str | None = None
    wifi: bool | None = None
    packages: list[str] = field(default_factory=list)
    overlays: list[str] = field(default_factory=list)
    cmdline: list[str] = field(default_factory=list)
    config_txt: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)

    def take(
        self,
        traits: Any,  # noqa: ANN401 -- Traits, or the Spec, which has some of its fields
        where: Callable[[FieldPath], str],
        skip: tuple[str, ...] = (),
    ) -> None:
        """Put a layer over what is there; `where` tells the origin of one of its fields."""
        written = [name for name in traits.model_fields_set if name not in skip]
        for name in SCALARS:
            if name in written and getattr(traits, name) is not None:
                setattr(self, name, getattr(traits, name))
                self.origins[name] = where((name,))
        for name in LISTS:
            if name in written and getattr(traits, name):
                self.origins[name] = where((name,))
                self._append(name, getattr(traits, name), where)

    def _append(self, name: str, items: list[str], where: Callable[[FieldPath], str]) -> None:
        mine = getattr(self, name)
        for index, item in enumerate(items):
            if name in _REPEATABLE or item not in mine:
                self.origins[f"{name}[{len(mine)}]"] = where((name, index))
                mine.append(item)


def merge(spec: model.Spec, seat: Seat, shelf: Shelf, document: Document) -> Merged:
    """The traits of a node, image phase only: the kernel tokens of the node itself stay with it."""
    merged = Merged()
    taken: set[tuple[str, str]] = set()

    def in_file(path: FieldPath) -> Callable[[FieldPath], str]:
        return lambda name: f"{document.file}:{document.span((*path, *name), key=True).line + 1}"

    def profiles(names: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> None:
        for kind, name in names:
            if (kind, name) in taken:
                continue
            taken.add((kind, name))
            found = shelf.get(kind, name)
            if found is not None:
                profiles([split(inner) for inner in found.traits.profiles])
                merged.take(found.traits, _constant(found.label))

    if seat.board:
        profiles([(BOARD, seat.board)])
    profiles([(ROLE, seat.role)])
    profiles([split(name) for name in spec.profiles])
    merged.take(spec, in_file(()))
    role = spec.roles.get(seat.role)
    if role is not None:
        profiles([split(name) for name in role.profiles])
        merged.take(role, in_file(("roles", seat.role)))
    if seat.entry is not None:
        profiles([split(name) for name in seat.entry.profiles])
        merged.take(seat.entry, in_file(seat.path), skip=("cmdline",))
    return merged


def _constant(label: str) -> Callable[[FieldPath], str]:
    return lambda _name: label
