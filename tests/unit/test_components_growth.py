"""Who grows a root that lies in a logical volume, and what verify says where nobody does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import phony_facts as phony
import pytest
from delta_files import file_at

from piimage.bake.session import Packages
from piimage.bases.record import Base, Origin
from piimage.components import growth
from piimage.delta import Symlink
from piimage.disk.census import Seen
from piimage.facts import Filesystem, Partition, PartitionTable
from piimage.plan import plan
from piimage.progress import Quiet
from piimage.verify import rules_boot
from piimage.verify.view import Place, View

if TYPE_CHECKING:
    from piimage.bases.store import Store

UNITS = "/etc/systemd/system"
XFS = Filesystem(type="xfs")
VOLUME = Partition(
    number=1001, start=5 << 20, size=64 << 20, type="linear", filesystem=XFS, volume="hats/root"
)
TABLE = PartitionTable(
    label="dos", disk_id="00c0ffee", sector_size=512, size=80 << 20,
    partitions=(
        Partition(number=1, start=1 << 20, size=3 << 20, type="c", filesystem=Filesystem(type="vfat")),
        Partition(number=2, start=4 << 20, size=70 << 20, type="8e", filesystem=Filesystem(type="LVM2_member")),
    ),
    volumes=(VOLUME,),
)  # fmt: skip
CMDLINE = "/boot/firmware/cmdline.txt"
FILE = Seen(kind="file", mode=0o644, size=1)
GROWS = f"{UNITS}/multi-user.target.wants/{growth.UNIT}"


class Said(Quiet):
    """Keeps what it is warned of."""

    def __init__(self):
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def facts():
    found = phony.debian()
    return replace(found, table=TABLE, mounts={"/": 1001, found.firmware: 1})


def view(words, root):
    place = Place(root=1001, firmware=1, mountpoint="/boot/firmware")
    texts = {CMDLINE: words.encode()}
    return View(
        table=TABLE, place=place, boot_sector="", root=root, firmware={"/cmdline.txt": FILE}, reader=texts.get
    )  # fmt: skip


def test_a_volume_is_grown_by_what_people_call_resize():
    entries = plan.plan_variant(phony.cluster(), phony.HEAD, facts()).delta.entries

    script = file_at(entries, "/usr/lib/piimage/grow-root")
    own = Path(growth.__file__).parents[1] / "guest/bin/resize"
    assert (script.content, script.mode) == (own.read_bytes(), 0o755)
    unit = file_at(entries, f"{UNITS}/{growth.UNIT}").content.decode()
    assert "ExecStart=/bin/sh /usr/lib/piimage/grow-root\n" in unit
    assert isinstance(entries[GROWS], Symlink)


def test_a_partition_is_grown_by_cloud_init():
    assert not growth.image(phony.cluster(), phony.HEAD, phony.debian()).delta.entries


@pytest.mark.parametrize(
    ("words", "root", "told"),
    [
        ("root=/dev/mapper/hats-root rd.lvm.lv=hats/root", {GROWS: FILE}, []),
        ("root=/dev/mapper/hats-root", {GROWS: FILE}, []),
        ("root=/dev/hats/root rd.lvm.lv=hats/swap rd.lvm.lv=hats/root", {GROWS: FILE}, []),
        ("root=/dev/mapper/hats-root rd.lvm.lv=hats/swap", {GROWS: FILE}, ["PI202"]),
        ("root=/dev/mapper/fedora-root", {GROWS: FILE}, ["PI202"]),
        ("root=/dev/mapper/hats-root", {}, ["PI206"]),
    ],
)
def test_what_keeps_a_volume_from_coming_up_or_growing_is_told(words, root, told):
    image = view(words, root)

    found = [*rules_boot.command_line(image), *rules_boot.growth(image)]

    assert [finding.rule for finding in found] == told


@pytest.mark.parametrize("volume", [False, True])
def test_a_root_with_something_behind_it_is_told_of_before_any_work(volume):
    table = TABLE if volume else phony.debian().table
    end = max(p.start + p.size for p in table.partitions)
    swap = Partition(number=5, start=end, size=1 << 20, type="82")
    table = replace(table, partitions=(*table.partitions, swap))
    base = facts() if volume else phony.debian()

    assert growth.hindrance(base) == ""
    found = replace(base, table=table)

    said = Said()
    store = SimpleNamespace(
        base=lambda name, **_: Base(
            name=name,
            id="b" * 64,
            path=Path("/none"),
            facts=found,
            origin=Origin.now("imported", "x.img"),
        )
    )
    packages = Packages(phony.cluster(), cast("Store", store), said)
    for role in phony.cluster().roles:
        packages.wanted(role)
    assert said.warnings == [f"base `debian-13`: {growth.hindrance(found)}"]

    (sentence,) = plan.plan_variant(phony.cluster(), phony.HEAD, found).deferred
    assert sentence == growth.hindrance(found)
    assert sentence.endswith("partition 5 lies behind it")
