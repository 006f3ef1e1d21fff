"""Images laid out like the vendors', with a userland that runs, in a cache of their own: nothing of it stays."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import older_debian
from fixtures import (
    bootable,
    debian_raspi,
    debian_raspi_boots,
    fedora,
    fedora_boots,
    raspios,
    raspios_boots,
    selinux_policy,
    ubuntu,
    ubuntu_boots,
)
from older_debian import Wanted

from piimage.bases.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from fixtures.bootable import Vendor

    from piimage.bases.record import Base

#: Another disk, user and date than in the tests that only read.
TRIXIE = raspios.Choice(date="2026-04-13", disk_id="5eedba5e", user="rosa")
BOOKWORM = raspios.Choice(date="2024-11-19", disk_id="deadbeef")
BOOKWORM_32_BIT = raspios.Choice("armhf", date="2025-05-13", disk_id="ca5cade5", user="mia")
BULLSEYE = raspios.Choice(date="2023-05-03", disk_id="b0a710ad", user="hal")
RASPI = debian_raspi.Choice(family=3, date="20260102", disk_id="0badcafe")
RASPI_12 = debian_raspi.Choice(family=4, date="20231109", disk_id="0ddba115")
#: Each of the base that has its userland and an empty directory.
VENDORS: dict[str, Callable[[Base, Path], Vendor]] = {
    "raspios-trixie": lambda _base, _scratch: raspios_boots.trixie(TRIXIE),
    "raspios-bookworm": lambda _base, _scratch: raspios_boots.bookworm(BOOKWORM),
    "ubuntu-24.04": lambda _base, _scratch: ubuntu_boots.server(ubuntu.NOBLE),
    "fedora-43": lambda base, scratch: fedora_boots.minimal(
        fedora.NEW, base, selinux_policy.files(base.facts.os.codename, scratch)
    ),
    "fedora-server-43": lambda _base, _scratch: fedora_boots.server(43),
    "debian-raspi-13": lambda base, _scratch: debian_raspi_boots.image(RASPI, base),
    "debian-raspi-12": lambda base, _scratch: debian_raspi_boots.bookworm(RASPI_12, base),
    "raspios-bookworm-armhf": lambda _base, _scratch: raspios_boots.bookworm_32_bit(
        BOOKWORM_32_BIT
    ),
    "raspios-bullseye": lambda _base, _scratch: raspios_boots.bullseye(BULLSEYE),
}
#: Whose userland is not the default base's.
OLDER = {
    "debian-raspi-12": Wanted("bookworm", "arm64", debian_raspi_boots.BOOKWORM_PACKAGES),
    "raspios-bookworm-armhf": Wanted(
        "bookworm", "armhf", raspios_boots.BOOKWORM_32_BIT_PACKAGES, foreign=("arm64",)
    ),
    "raspios-bullseye": Wanted("bullseye", "arm64", raspios_boots.BULLSEYE_PACKAGES),
}


@dataclass(frozen=True)
class Imported:
    """A cache with vendors' images as bases, and an empty directory on the same disk."""

    cache: Path
    home: Path
    vendors: dict[str, Vendor]


@contextmanager
def imported(default_base: str, wanted: Mapping[str, str], piimage) -> Iterator[Imported]:
    """Make images, each a key of `VENDORS`, and import them by the names that `wanted` has for them."""
    user = Store()
    base = user.base(default_base)
    with user.scratch() as place:
        cache, home = place / "cache", place / "home"
        cache.mkdir()
        home.mkdir()
        for shared in ("native", "packages", "radio-kits"):
            (cache / shared).symlink_to(user.directory(shared))
        made = {}
        for name, key in wanted.items():
            making, more = place / f"making-{name}", place / f"more-{name}"
            making.mkdir()
            more.mkdir()
            under = (
                older_debian.imported(OLDER[key], more, piimage, cache) if key in OLDER else base
            )
            made[name] = VENDORS[key](under, more)
            image = bootable.make(under, made[name], place / f"{name}.img", making)
            done = piimage("base", "import", image, "--name", name, cache=cache)
            assert done.returncode == 0, done.stderr
            image.unlink()
        yield Imported(cache, home, made)
