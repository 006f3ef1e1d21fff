"""The family of a base, and the names its members share.

Everything that an image says about itself is read from it (facts); this table holds the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from piimage.distros.system import recognise

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
#: Its GPIO devices belong to `dialout`; it has no group `gpio`.
UBUNTU = replace(DEBIAN, groups={**_HARDWARE, "gpio": ("gpio", "dialout")})
FEDORA = Family(
    name="fedora",
    admin_group="wheel",
    ssh_unit="sshd.service",
    time_unit="chronyd.service",
    chrony_conf="/etc/chrony.conf",
    chrony_confdir="/etc/chrony.d",
)
_BY_SYSTEM = {"debian": DEBIAN, "raspios": DEBIAN, "ubuntu": UBUNTU, "fedora": FEDORA}


def family(facts: Facts) -> Family:
    """The family of the system that an image holds; raises `UnsupportedError` for an unknown one."""
    return _BY_SYSTEM[recognise(facts).kind]
