"""Upgrades: no node makes them by itself, so all nodes keep the packages of their build.

A head with Wi-Fi would upgrade its MPI library at night and the workers, which have no way out, would not: after that
no program runs over both. And whoever logs in to a fresh node, or a playbook that does, would find dpkg locked for
minutes (/usr/lib/apt/apt.systemd.daily), and Ubuntu's boot files staged anew. `sudo apt upgrade` on a node does what it
always did; who wants it at night names the package that does it, or enables its unit in an overlay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components import overlays
from piimage.components.contribution import Contribution

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.facts import Facts

#: Of apt and unattended-upgrades, of dnf-automatic for dnf 4 and 5, of dnf itself (it holds its lock while it fetches),
#: and of PackageKit where a distribution has it upgrade in the background.
UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "unattended-upgrades.service",
    "dnf-automatic.timer",
    "dnf-automatic-download.timer",
    "dnf-automatic-install.timer",
    "dnf5-automatic.timer",
    "dnf-makecache.timer",
    "dnf5-makecache.timer",
    "packagekit-background.timer",
)
#: Whoever asks for one of these wants what it does.
_PACKAGES = frozenset({"unattended-upgrades", "dnf-automatic", "dnf5-plugin-automatic"})


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """These units disabled, but for those that an overlay of the role wants; none where a package for it is wanted."""
    if _PACKAGES & {*role.packages, *overlays.packages(cluster, role)}:
        return Contribution()
    wanted = {name for overlay in overlays.used(cluster, role) for name in overlay.enable}
    enabled = (name for name in UNITS if name in facts.units and facts.units[name].enabled)
    return Contribution(disable=tuple(name for name in enabled if name not in wanted))
