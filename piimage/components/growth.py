"""The root file system at the end of its card, where cloud-init does not bring it there.

cloud-init grows a partition and the file system in it (cc_growpart.py, cc_resizefs.py); of a root in a logical volume
it says `device_part_info(/dev/mapper/...) failed`, and leaves it alone. Fedora Server has its root there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.contribution import Contribution
from piimage.components.shipped import shipped
from piimage.delta import Delta, File

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.facts import Facts

UNIT = "piimage-grow.service"
_SCRIPT = "/usr/lib/piimage/grow-root"
#: At every start, as cloud-init does it: the card may be copied to a larger one. Nothing waits for it.
_SERVICE = f"""\
[Unit]
Description=Grow the root file system to the end of its card
After=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {_SCRIPT}

[Install]
WantedBy=multi-user.target
"""


def hindrance(facts: Facts) -> str:
    """What keeps the root file system from growing, as a sentence, or `""`.

    A partition grows up to the next one: growpart(1), raspi-config and the initramfs of Raspberry Pi OS leave a root
    alone that is not the last.
    """
    root = facts.table.outside(facts.table.partition(facts.mounts["/"]))
    behind = [p.number for p in facts.table.partitions if p.start > root.start]
    if not behind:
        return ""
    return (
        f"the root file system stays as small as in the image: partition {behind[0]} lies behind it"
    )


def image(_cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """A unit that runs what `resize` is for people; nothing where the root is a partition."""
    kept = tuple(filter(None, [hindrance(facts)]))
    if not facts.table.partition(facts.mounts["/"]).volume:
        return Contribution(deferred=kept)
    entries = {
        _SCRIPT: File(shipped("bin")["resize"], mode=0o755),
        f"/etc/systemd/system/{UNIT}": File(_SERVICE.encode()),
    }
    return Contribution(delta=Delta.of("growth", entries), enable=(UNIT,), deferred=kept)
