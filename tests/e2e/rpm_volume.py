"""A guest moved into a logical volume: its root an XFS, labelled by a policy of one line, as on Fedora Server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures import xfs
from fixtures.card import SECTOR, Card, Layout, tool
from fixtures.lvm import Group

from piimage.bases.record import Origin
from piimage.disk import fat
from piimage.disk.ext4 import open_ext4
from piimage.disk.sparse import copy_sparse, hash_file

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.bases.store import Store

LABEL = "system_u:object_r:usr_t:s0"
#: What an XFS keeps for itself, its log above all, and less than what a bake wants to leave free.
_MORE, _EXTENT = 320 << 20, 4 << 20
_FILES = {
    "/etc/fstab": "/dev/mapper/fedora--hats-root / xfs defaults 0 0\nLABEL=RASPIFIRM /boot/firmware vfat rw 0 2\n",
    "/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
    "/etc/selinux/targeted/contexts/files/file_contexts": f"/opt(/.*)?\t{LABEL}\n",
}


def moved(base: Base, store: Store, home: Path) -> Base:
    """The base published as `server`; its root is rather full."""
    facts = base.facts
    old, image = home / "old.img", home / "server.img"
    copy_sparse(base.path, old)
    old.chmod(0o600)
    root = facts.table.partition(facts.mounts["/"])
    firmware = facts.table.partition(facts.mounts[facts.firmware])
    with open_ext4(old, root.start) as tree:
        size = -(-(tree.used + _MORE) // _EXTENT) * _EXTENT
    script = "rm /etc/fstab\n"
    for folder in ("", "/targeted", "/targeted/contexts", "/targeted/contexts/files"):
        script += f"mkdir /etc/selinux{folder}\n"
    for number, (path, text) in enumerate(_FILES.items()):
        (home / f"file{number}").write_text(text)
        script += f"write {home}/file{number} {path}\n"
    tool("debugfs", "-w", "-f", "-", f"{old}?offset={root.start}", stdin=script.encode())
    names = [n for n in fat.list_tree(base.path, firmware.start) if n.endswith((".txt", ".elf"))]
    boot = fat.read_files(base.path, firmware.start, names)
    layout = Layout(
        2048, 2048 + firmware.size // SECTOR, "RASPIFIRM", "", "5e4fed43", root_size=size, root_type="xfs",
        group=Group(name="fedora-hats", before=(("swap", 4),)),
    )  # fmt: skip
    card = Card("server", layout, {}, {name.lstrip("/"): data for name, data in boot.items()})
    card.partition(image)
    card.make_boot(image)
    card.make_group(image)
    xfs.move(old, root.start, image, layout.root_at, size, "", None)
    old.unlink()
    origin = Origin.now("imported", "a test")
    made = store.publish("server", image, origin=origin, image_id=hash_file(image), tools={})
    image.unlink(missing_ok=True)
    return made
