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


def image(_cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """The default target; raises `UnsupportedError` for a desktop that cannot be."""
    if role.target is Target.GRAPHICAL:
        _check_desktop(role, facts)
    unit = f"{role.target}.target"
    return Contribution(
        delta=Delta.of("boot", {_DEFAULT: Symlink(f"/usr/lib/systemd/system/{unit}")}),
        cmdline=role.cmdline,
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
