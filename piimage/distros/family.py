"""The family of a base, and the names its members share.

Everything that an image says about itself is read from it (facts); this table holds the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.facts import Facts

#: Logical group -> names to try. Only those that a base has are used: hardware groups come with
#: packages and udev rules, and a group made by hand would own no device.
_HARDWARE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "adm": ("adm", "systemd-journal"),
        "audio": ("audio",),
        "bluetooth": ("bluetooth",),
        "cdrom": ("cdrom",),
        "dialout": ("dialout",),
        "games": ("games",),
        "gpio": ("gpio",),
        "i2c": ("i2c",),
        "input": ("input",),
        "kvm": ("kvm",),
        "netdev": ("netdev",),
        "plugdev": ("plugdev",),
        "render": ("render",),
        "serial": ("dialout",),
        "spi": ("spi",),
        "users": ("users",),
        "video": ("video", "render"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Names by logical name. `admin_group` is the one that the stock sudoers file knows."""

    name: str
    admin_group: str
    ssh_unit: str
    time_unit: str
    chrony_conf: str
    chrony_confdir: str
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _HARDWARE)


DEBIAN = Family(
    name="debian",
    admin_group="sudo",
    ssh_unit="ssh.service",
    time_unit="chrony.service",
    chrony_conf="/etc/chrony/chrony.conf",
    chrony_confdir="/etc/chrony/conf.d",
)
FEDORA = Family(
    name="fedora",
    admin_group="wheel",
    ssh_unit="sshd.service",
    time_unit="chronyd.service",
    chrony_conf="/etc/chrony.conf",
    chrony_confdir="/etc/chrony.d",
)
_BY_ID = {"debian": DEBIAN, "raspbian": DEBIAN, "ubuntu": DEBIAN, "fedora": FEDORA}


def family(facts: Facts) -> Family:
    """The family that os-release names; raises `UnsupportedError` for an unknown one."""
    for name in (facts.os.id, *facts.os.id_like):
        if name in _BY_ID:
            return _BY_ID[name]
    raise UnsupportedError(
        f"`{facts.os.pretty or facts.os.id}` is of no family that piimage knows:"
        f" {', '.join(sorted(_BY_ID))}",
        hint="use a base of one of these families",
    )
