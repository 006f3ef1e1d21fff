"""A package format: how its packages are resolved, fetched and installed. One module each beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from piimage.bake import dpkg_script, rpm_script
from piimage.bake.apt import Apt
from piimage.bake.dnf import Dnf
from piimage.distros.family import family
from piimage.distros.firmware_hook import as_on_the_board

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
    return (Apt if is_dpkg(base.facts) else Dnf)(base, root, progress)


def script(layer: Layer, facts: Facts, preseed: Sequence[str] = ()) -> bytes:
    """What an engine runs to install `layer`.

    Of `preseed`, lines of debconf-set-selections(1), those count whose package is in the layer: so a layer is the
    same whatever else a cluster wants.
    """
    if not is_dpkg(facts):
        return rpm_script.script(layer)
    names = {package.name.partition(":")[0] for package in layer.packages}
    answers = [line for line in preseed if line.split()[0] in names]
    return dpkg_script.script(
        layer,
        architecture=facts.architecture,
        when=facts.made or 0,
        preseed=answers,
        board=as_on_the_board(facts),
    )


def is_dpkg(facts: Facts) -> bool:
    """Whether the guest's packages are dpkg's; else they are RPM's.

    Raises `UnsupportedError` for a guest of no known family.
    """
    return family(facts).name == "debian"
