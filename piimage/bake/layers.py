"""Which packages are baked on top of which: what all roles of a base share first, then each role's rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Key = TypeVar("_Key")
Names = tuple[str, ...]


def split(wanted: Mapping[_Key, Iterable[str]]) -> dict[_Key, tuple[Names, ...]]:
    """The layers of each role of one base, the lowest first, from all roles' package names.

    Which node is being built makes no difference, so that head and worker find the same lower layer. Names are
    sorted; a layer is never empty.
    """
    sets = {key: frozenset(names) for key, names in wanted.items()}
    common = frozenset.intersection(*sets.values()) if sets else frozenset()
    found = {}
    for key, names in sets.items():
        layers = (tuple(sorted(common)), tuple(sorted(names - common)))
        found[key] = tuple(layer for layer in layers if layer)
    return found
