"""A package format: how its packages are resolved, fetched and installed. One module each beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from piimage.bake import dpkg_script
from piimage.bake.apt import Apt
from piimage.distros.family import family
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from piimage.bake.lock import Layer, Package
    from piimage.bases.record import Base
    from piimage.facts import Facts
    from piimage.progress import Progress


class Archive(Protocol):
    """The package archive of one base, as the base itself has it configured."""

    def resolve(self, wanted: Mapping[str, str], below: Sequence[Layer]) -> Layer:
        """The layer for `{package: who asks for it}` on top of others; its `roles` are left empty.

        Raises `PiimageError` when there is none, and says which package is at fault and who asks for it.
        """

    def fetch(self, packages: Sequence[Package], directory: Path) -> None:
        """Download package files under the names of the lock; raises `PiimageError`."""


def archive(base: Base, root: Path, progress: Progress) -> Archive:
    """The archive of `base`, with the empty directory `root` for its files; nothing is read yet."""
    _require_dpkg(base.facts)
    return Apt(base, root, progress)


def script(layer: Layer, facts: Facts, preseed: Sequence[str] = ()) -> bytes:
    """What an engine runs to install `layer`.

    Of `preseed`, lines of debconf-set-selections(1), those count whose package is in the layer: so a layer is the
    same whatever else a cluster wants.
    """
    _require_dpkg(facts)
    names = {package.name.partition(":")[0] for package in layer.packages}
    answers = [line for line in preseed if line.split()[0] in names]
    return dpkg_script.script(layer, architecture=facts.architecture, preseed=answers)


def _require_dpkg(facts: Facts) -> None:
    if family(facts).name != "debian":
        raise UnsupportedError(
            f"packages cannot be added to `{facts.os.pretty or facts.os.id}` yet",
            hint="use a base of Debian's family, or one that has them",
        )
