from __future__ import annotations

import pytest

from piimage.bases.guest_text import fstab
from piimage.bases.layout import firmware_mount, resolve_mounts, seen
from piimage.errors import ImageError, UnsupportedError
from piimage.facts import Filesystem, Partition, PartitionTable

BOOT = Partition(
    number=1,
    start=4 << 20,
    size=1 << 20,
    type="0c",
    filesystem=Filesystem(type="vfat", label="bootfs", uuid="C0FF-EE01"),
)
ROOT = Partition(
    number=2,
    start=8 << 20,
    size=1 << 20,
    type="83",
    filesystem=Filesystem(type="ext4", label="rootfs", uuid="11111111-2222-4333-8444-5555555555aa"),
)
SWAP = Partition(number=10, start=16 << 20, size=1 << 20, type="82")
TABLE = PartitionTable(
    label="dos", disk_id="1badcafe", sector_size=512, size=32 << 20, partitions=(BOOT, ROOT, SWAP)
)


@pytest.mark.parametrize(
    "spec",
    [
        "LABEL=bootfs",
        'LABEL="bootfs"',
        "UUID=C0FF-EE01",
        "UUID=c0ff-ee01",
        "PARTUUID=1badcafe-01",
        "PARTUUID=1BADCAFE-01",
        "/dev/mmcblk0p1",
        "/dev/sda1",
        "/dev/nvme0n1p1",
        "/dev/disk/by-label/bootfs",
        "/dev/disk/by-uuid/C0FF-EE01",
        "/dev/disk/by-partuuid/1badcafe-01",
    ],
)
def test_every_way_to_name_a_partition(spec):
    mounts = resolve_mounts(fstab(f"{spec} /boot/firmware vfat defaults 0 2\n"), TABLE, ROOT)

    assert mounts == {"/": 2, "/boot/firmware": 1}
    assert firmware_mount(mounts, BOOT, []) == "/boot/firmware"


def test_partuuid_counts_in_hex():
    assert resolve_mounts(fstab("PARTUUID=1badcafe-0a /srv ext4"), TABLE, ROOT) == {
        "/": 2,
        "/srv": 10,
    }


@pytest.mark.parametrize(
    "spec",
    ["tmpfs", "server:/share", "LABEL=other", "LABEL=", "PARTUUID=deadbeef-01", "/dev/mapper/vg-x"],
)
def test_what_lies_elsewhere_is_left_out(spec):
    assert resolve_mounts(fstab(f"{spec} /mnt auto defaults\n"), TABLE, ROOT) == {"/": 2}


def test_an_ambiguous_label_names_nothing():
    twin = Partition(number=3, start=1, size=1, type="0c", filesystem=BOOT.filesystem)
    table = PartitionTable(
        label="dos", disk_id="1badcafe", sector_size=512, size=1, partitions=(BOOT, ROOT, twin)
    )

    assert resolve_mounts(fstab("LABEL=bootfs /boot vfat"), table, ROOT) == {"/": 2}


def test_fstab_that_contradicts_the_root():
    with pytest.raises(
        UnsupportedError, match="fstab mounts partition 1 at `/`, but partition 2 holds"
    ):
        resolve_mounts(fstab("LABEL=bootfs / ext4 defaults\n"), TABLE, ROOT)


@pytest.mark.parametrize("place", ["/usr", "/var", "/etc", "/home", "/root"])
def test_a_system_in_pieces_is_refused(place):
    with pytest.raises(UnsupportedError, match=f"`{place}` lies on a partition of its own"):
        resolve_mounts(fstab(f"/dev/sda10 {place} ext4 defaults\n"), TABLE, ROOT)


def test_a_firmware_partition_that_nothing_mounts_quotes_fstab():
    with pytest.raises(ImageError, match="says: `LABEL=x /boot`"):
        firmware_mount({"/": 2}, BOOT, fstab("LABEL=x /boot vfat defaults\n"))
    with pytest.raises(ImageError, match="says: nothing"):
        firmware_mount({"/": 2}, BOOT, [])


def test_what_was_seen():
    assert seen(TABLE) == "1 vfat `bootfs`, 2 ext4 `rootfs`, 10 type 82"
