"""What is known of MPI flavours before an image is looked into: packages, releases, what fits together."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.facts import Facts

#: Flavour -> names that bring it; the logical ones first.
PACKAGES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "openmpi": frozenset({"mpi-openmpi", "mpi-openmpi-dev", "openmpi-bin", "libopenmpi-dev"}),
        "mpich": frozenset({"mpi-mpich", "mpi-mpich-dev", "mpich", "libmpich-dev"}),
    }
)
#: Open MPI 5 gave up 32 bits: from Debian 13 on there is no package for armhf, nor in Raspbian.
_NO_OPENMPI_SINCE = 13


def other_flavour(package: str, flavour: str) -> str | None:
    """The flavour that `package` brings if it is not `flavour`."""
    found = (name for name, packages in PACKAGES.items() if package in packages)
    return next((name for name in found if name != flavour), None)


def lacks(flavour: str, facts: Facts) -> bool:
    """Whether the release of a base has no package of the flavour for its architecture."""
    number = re.match(r"\d+", facts.os.version_id)
    if flavour != "openmpi" or facts.architecture != "armhf" or number is None:
        return False
    return facts.os.id in {"debian", "raspbian"} and int(number[0]) >= _NO_OPENMPI_SINCE


def kind(facts: Facts) -> str:
    """Architecture and release in words; bases of equal kinds have libraries that talk to each other."""
    release = facts.os.codename or f"{facts.os.id} {facts.os.version_id}".strip()
    return f"{facts.architecture} {release}"
