"""Which packages are baked on top of which: what all roles of a base share first, then each role's rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from piimage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from piimage.bake.lock import Layer

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


def refuse_removals(layer: Layer, wanted: Mapping[str, str]) -> None:
    """Raise `ConfigError` if packages of the layer put one out that is wanted; `wanted` says by whom, in words.

    A layer on top may do so with one below it, or of the base: Debian's firewalld does with cloud-init.
    """
    for name in layer.removed:
        if name in wanted:
            raise ConfigError(
                f"{_named(layer.wanted)} cannot be installed beside `{name}`, which {wanted[name]} asks for, on base "
                f"`{layer.base}`",
                hint="leave out what conflicts with it: `apt-cache show` names it under Conflicts and Breaks",
            )


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
