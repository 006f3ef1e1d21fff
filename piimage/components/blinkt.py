"""Blinkt: the command that drives a node's light bar, and the unit that shows what is wished.

The driver is `piimage.guest.blinkt`, copied into the image as it stands here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from piimage.components.contribution import Check, Contribution
from piimage.components.shipped import shipped
from piimage.delta import Delta, Directory, File, Symlink
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from piimage.cluster import Blinkt, Cluster, Role
    from piimage.delta import Entry
    from piimage.facts import Facts

UNIT = "piimage-blinkt.service"
COMMAND = "/usr/local/bin/piimage-blinkt"
SETTINGS = "/etc/piimage/blinkt.json"
LIBRARY = "/usr/lib/piimage/blinkt"
LOCATE = "/usr/lib/piimage/bin/locate"
OFF = "off"
#: The name is the same on Debian, Ubuntu, Raspberry Pi OS and Fedora.
_GPIOD = "python3-libgpiod"

#: Root, since plain Debian has no group for /dev/gpiochip*, but root without any capability and with that one kind
#: of device. Nothing here may want a mount namespace (ProtectSystem=, PrivateTmp=, DynamicUser=...): making one
#: walks over all mounts, and a share whose server is dead would hold the unit there. ExecCondition keeps the unit
#: from failing where there is no header, as in QEMU's `virt`, whose power button is a gpiochip too.
_SERVICE = f"""\
[Unit]
Description=Light bar (Blinkt)
ConditionPathExistsGlob=/dev/gpiochip*
StartLimitIntervalSec=0

[Service]
ExecCondition={COMMAND} probe
ExecStart={COMMAND} run
ExecStopPost={COMMAND} clear
Restart=on-failure
RestartSec=10
TimeoutStopSec=10
Nice=10
CapabilityBoundingSet=
NoNewPrivileges=yes
DevicePolicy=closed
DeviceAllow=char-gpiochip rw
IPAddressDeny=any
IPAddressAllow=localhost
RestrictAddressFamilies=AF_UNIX AF_INET
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


def packages(cluster: Cluster, _role: Role) -> tuple[str, ...]:
    """Logical names of what the driver needs."""
    return ("gpio-python",) if cluster.blinkt is not None else ()


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """Command, driver, setting and unit on every node; raises `UnsupportedError` without libgpiod."""
    if cluster.blinkt is None:
        return Contribution()
    if _GPIOD not in facts.packages:
        raise UnsupportedError(
            f"the base has no {_GPIOD}, which the Blinkt is driven with",
            hint="use a base whose archive has that package, or take `blinkt` out",
        )
    entries: dict[str, Entry] = {
        **_programs(cluster, role),
        SETTINGS: File(settings_text(cluster, cluster.blinkt).encode()),
        f"/etc/systemd/system/{UNIT}": File(_SERVICE.encode()),
    }
    on = cluster.blinkt.show != OFF
    return Contribution(
        delta=Delta.of("blinkt", entries),
        enable=(UNIT,) if on else (),
        checks=(
            Check(name="blinkt library", argv=("python3", "-c", "import gpiod")),
            Check(
                name="blinkt driver",
                argv=(COMMAND, "locate", "--simulate", "--seconds", "0", "--brightness", "31"),
                expect=r"^(ffffff@31 ){8} locate$",
            ),
            Check(
                name="blinkt unit",
                argv=("systemctl", "show", "--property=UnitFileState", "--value", UNIT),
                expect="^enabled$" if on else "^disabled$",
            ),
            Check(
                name="blinkt state",
                # Inactive where there is no header for a bar; that is a condition, and no failure.
                argv=("systemctl", "show", "--property=ActiveState", "--value", UNIT),
                expect="^(active|inactive)$",
            ),
        ),
    )


def _programs(cluster: Cluster, role: Role) -> dict[str, Entry]:
    """Command and driver, and `~/bin/locate` where the first user reaches the other nodes."""
    guest = shipped("blinkt")
    entries: dict[str, Entry] = {
        f"{LIBRARY}/{name}": File(text) for name, text in guest.items() if name.endswith(".py")
    }
    entries[COMMAND] = File(guest["piimage-blinkt"], mode=0o755)
    if role.head or cluster.ssh.trust == "mesh":
        user = cluster.users[0]
        entries[LOCATE] = File(guest["locate"], mode=0o755)
        entries[f"{user.home}/bin"] = Directory(0o755, user.uid, user.gid)
        # Not on everybody's PATH: plocate has a program of that name.
        entries[f"{user.home}/bin/locate"] = Symlink(LOCATE, user.uid, user.gid)
    return entries


def settings_text(cluster: Cluster, blinkt: Blinkt) -> str:
    """What the unit shows after a boot, and the shares that `status` looks after."""
    shares = [{"path": share.path, "server": share.server} for share in cluster.shares]
    data = {"show": blinkt.show, "brightness": blinkt.brightness, "shares": shares}
    return json.dumps(data, indent=1) + "\n"
