"""The target a node boots into, and the kernel and firmware settings that its role asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.cluster import Target
from piimage.components.contribution import Check, Contribution
from piimage.delta import Delta, Symlink
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.facts import Facts

_DISPLAY_MANAGERS = (
    "display-manager.service",
    "lightdm.service",
    "gdm.service",
    "gdm3.service",
    "sddm.service",
)
_DEFAULT = "/etc/systemd/system/default.target"
#: Debian's images for the Raspberry Pi configure raspi-firmware once more at the first boot (image-specs): before
#: anything else and without a limit, kernel and initramfs are copied to the FAT, cmdline.txt and config.txt truncated
#: and written anew, for a serial port and a model that the image already has them for. Power that fails by then leaves
#: a card that does not start, a FAT that is worn a node without multi-user.target. The next kernel does the same, and
#: finds what is ours (`firmware`).
_REGENERATES = "rpi-reconfigure-raspi-firmware.service"


def image(_cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """The default target; raises `UnsupportedError` for a desktop that cannot be."""
    if role.target is Target.GRAPHICAL:
        _check_desktop(role, facts)
    unit = f"{role.target}.target"
    return Contribution(
        delta=Delta.of("boot", {_DEFAULT: Symlink(f"/usr/lib/systemd/system/{unit}")}),
        cmdline=role.cmdline,
        disable=(_REGENERATES,) if _REGENERATES in facts.units else (),
        config_txt=role.config_txt,
        checks=(Check(name="target", argv=("systemctl", "get-default"), expect=f"^{unit}$"),),
    )


def _check_desktop(role: Role, facts: Facts) -> None:
    if not role.head:
        raise UnsupportedError(
            f"role `{role.name}` asks for the graphical target, which only the head has",
            hint="write `target: multi-user` for the other roles",
        )
    if not any(name in facts.units for name in _DISPLAY_MANAGERS):
        raise UnsupportedError(
            f"role `{role.name}` asks for the graphical target, but the base has no display"
            " manager",
            hint="use a desktop base for this role, or write `target: multi-user`",
        )
