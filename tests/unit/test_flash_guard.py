"""Each refusal by itself, on a machine that is a directory; tests/integration tries them on real loop devices."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from fixtures import fedora_server
from made_up_machine import MIB, MMC, SATA, Machine, MadeUp
from phony import ROOT_START, mbr

from piimage import label
from piimage.disk.sparse import copy_sparse
from piimage.errors import DeviceRefusedError, MissingToolError
from piimage.flash import guard
from piimage.flash.guard import admit, examine, unmount
from piimage.flash.guard_content import Content, contents, foreign


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    made.mount("8:2", "/", "/dev/sda2")
    made.disk("sda", "8:0", under=SATA, removable="0")
    made.partition("sda", "sda2", "8:2")
    return made


@pytest.fixture
def card(machine):
    node = machine.disk("sdb", "8:16")
    machine.partition("sdb", "sdb1", "8:17")
    return node


def look(machine, path, **options):
    return examine(path, settle=0, host=machine.host, **options)


def names(machine, path, **options):
    return [refusal.name for refusal in look(machine, path, **options).refusals]


def test_an_empty_card_is_admitted(machine, card):
    assert admit(look(machine, card, image_size=64 * MIB)).number == (8, 16)


def test_a_partition(machine, card):
    found = look(machine, machine.at("dev/sdb1"))
    assert [r.name for r in found.refusals] == ["partition"]
    assert found.refusals[0].reason == "it is a partition of `sdb`: an image needs the whole disk"
    assert found.refusals[0].override is None


def test_a_locked_card(machine):
    assert names(machine, machine.disk("sdc", "8:32", ro="1")) == ["read-only"]


def test_an_empty_reader(machine):
    assert names(machine, machine.disk("sdc", "8:32", size=0), image_size=5) == ["no-medium"]


def test_the_disk_that_the_machine_runs_from(machine):
    found = look(machine, machine.at("dev/sda"))
    assert [r.name for r in found.refusals] == ["not-removable", "system-disk"]
    assert found.refusals[1].reason == "this machine runs from it (`/`)"
    with pytest.raises(DeviceRefusedError) as caught:
        admit(found, guard.OVERRIDABLE)
    assert caught.value.refusals == ("system-disk",)


def test_the_disk_beneath_the_volume_that_the_machine_runs_from(machine):
    node = machine.disk("sdd", "8:48")
    machine.partition("sdd", "sdd3", "8:51")
    machine.disk("dm-0", "253:0", under="virtual", removable="0")
    machine.link("sys/block/dm-0/slaves/sdd3", machine.at("sys/dev/block/8:51").resolve())
    machine.mount("253:0", "/home", "/dev/mapper/vg-home")
    machine.link("sys/block/sdd/sdd3/holders/dm-0", machine.at("sys/block/dm-0").resolve())

    assert names(machine, node) == ["system-disk", "in-a-volume"]


def test_a_system_on_btrfs_which_has_numbers_of_its_own(machine):
    machine.mount("0:31", "/var", "/dev/sdb1", kind="btrfs")
    node = machine.disk("sdb", "8:16")
    machine.partition("sdb", "sdb1", "8:17")
    assert names(machine, node) == ["system-disk"]


def test_a_disk_in_the_machine_may_be_asked_for(machine):
    node = machine.disk("sdc", "8:32", under=SATA, removable="0")
    found = look(machine, node)
    assert [(r.name, r.override) for r in found.refusals] == [
        ("not-removable", "--allow not-removable")
    ]
    assert admit(found, ["not-removable"]).name == "sdc"
    with pytest.raises(DeviceRefusedError) as caught:
        admit(found)
    assert caught.value.hint == "if it is the right one: --allow not-removable"


def test_an_emmc_chip(machine):
    node = machine.disk("mmcblk0", "179:0", under=MMC, removable="0", device__type="MMC")
    assert names(machine, node) == ["not-removable"]


@pytest.mark.parametrize(("size", "expected"), [(64 * MIB, []), (64 * MIB + 1, ["too-small"])])
def test_room_for_the_image_to_the_byte(machine, card, size, expected):
    assert names(machine, card, image_size=size) == expected


def test_too_small_by_a_byte_says_how_much(machine, card):
    found = look(machine, card, image_size=64 * MIB + 1)
    assert found.refusals[0].reason == "it has 67108864 bytes and the image needs 67108865"


def test_a_disk_rather_than_a_card(machine):
    large = machine.disk("sdc", "8:32", size=2 << 40)
    assert names(machine, large) == ["too-large"]
    assert admit(look(machine, large), ["too-large"]).size == 2 << 40


def test_a_reader_with_large_sectors(machine):
    odd = machine.disk("sdc", "8:32", queue__logical_block_size="4096")
    assert names(machine, odd) == ["sector-size"]
    assert "4096 bytes" in look(machine, odd).refusals[0].reason
    assert admit(look(machine, odd), ["sector-size"]).sector == 4096


def test_mounted_with_consent(machine, card):
    machine.mount("8:17", "/media/ada/my\\040card", "/dev/sdb1", kind="vfat")
    found = look(machine, card)
    (refusal,) = found.refusals
    assert refusal.reason == "`sdb1` (vfat) is mounted at `/media/ada/my card`"
    assert refusal.override == "--unmount"
    assert admit(found, ["mounted"]).name == "sdb"


def test_mounted_in_another_namespace_only(machine, card):
    machine.process(500, namespace=2)
    for point in ("/mnt", "/mnt/again"):
        machine.mount("8:16", point, "/dev/sdb", pid=500)
    found = look(machine, card)
    (refusal,) = found.refusals
    assert (refusal.name, refusal.override) == ("mounted-elsewhere", None)
    assert refusal.reason.endswith("in the mount namespace of process 500")
    with pytest.raises(DeviceRefusedError, match="only a process in its namespace"):
        unmount(found)


def test_a_mount_that_services_in_namespaces_of_their_own_see_too_is_one(machine, card):
    machine.process(500, namespace=2)
    machine.mount("8:17", "/media/card", "/dev/sdb1")
    machine.mount("8:17", "/media/card", "/dev/sdb1", pid=500)
    assert names(machine, card) == ["mounted"]


def test_unmount_calls_umount_and_nothing_stronger(machine, card, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "umount"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    machine.mount("8:17", "/media/card", "/dev/sdb1")
    machine.mount("8:16", "/media/card/inside", "/dev/sdb")

    unmount(look(machine, card))

    assert (tmp_path / "calls").read_text().splitlines() == [
        "-- /media/card/inside",
        "-- /media/card",
    ]


def test_a_mount_that_stays_busy_is_a_refusal(machine, card, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "umount"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "umount: /media/card: target is busy." >&2\nexit 32\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    machine.mount("8:17", "/media/card", "/dev/sdb1")

    with pytest.raises(DeviceRefusedError, match="target is busy"):
        unmount(look(machine, card))


def test_swap_on_a_partition_of_it(machine, card):
    path = machine.at("proc/swaps")
    path.write_text(path.read_text() + "/dev/sdb1 partition 1048572 0 -2\n")
    found = look(machine, card)
    assert [(r.name, r.override) for r in found.refusals] == [("swap", None)]


@pytest.mark.parametrize("above", ["dm-1", "md127", "bcache0"])
def test_part_of_a_volume(machine, card, above):
    machine.write(f"sys/block/sdb/sdb1/holders/{above}/dev", "9:127")
    found = look(machine, card)
    assert [(r.name, r.reason) for r in found.refusals] == [
        ("in-a-volume", f"`sdb1` is part of `{above}`, which is active")
    ]


def test_one_device_of_a_mounted_btrfs_of_several(machine, card):
    machine.write("sys/fs/btrfs/0f3a/devices/sdb1/dev", "8:17")
    assert names(machine, card) == ["in-a-volume"]


def test_a_drive_for_discs(machine):
    assert names(machine, machine.disk("sr0", "11:0", under=SATA)) == ["optical"]


def test_a_volume_is_no_card(machine):
    assert names(machine, machine.disk("dm-3", "253:3", under="virtual")) == ["volume"]


@pytest.mark.parametrize("part", ["sdb", "sdb1"])
def test_a_loop_on_top(machine, card, part):
    machine.disk("loop4", "7:4", under="virtual", loop__backing_file=f"/dev/{part}")
    found = look(machine, card)
    assert [r.reason for r in found.refusals] == [
        f"`/dev/loop4` plays `{part}`: `losetup -d` ends that"
    ]


@pytest.mark.parametrize("part", ["sdb", "sdb1"])
def test_a_program_that_has_it_open(machine, card, part):
    machine.process(77, namespace=1, comm="dd")
    machine.opens(77, machine.at(f"dev/{part}"))
    (refusal,) = look(machine, card).refusals
    assert refusal.name == "open-elsewhere"
    assert refusal.reason == f"`dd` (process 77) has `{part}` open"


def test_files_of_servers_are_not_looked_at_since_that_may_take_for_ever(machine, card):
    machine.process(77, namespace=2, comm="dd")
    machine.opens(77, card)
    machine.mount("0:50", str(card.parent), "server:/srv", kind="nfs4", pid=77)
    assert names(machine, card) == []


def test_a_program_that_lets_go_is_waited_for(machine, card):
    machine.process(77, namespace=1, comm="systemd-udevd")
    machine.opens(77, card)
    real, looks = machine.host.names, []

    class Watched(MadeUp):
        def names(self, path):
            if path == "proc/77/fd":
                looks.append(path)
                if len(looks) == 2:
                    machine.at("proc/77/fd/3").unlink()
            return real(path)

    host = Watched(machine.root, machine.host.blocks)

    assert examine(card, host=host).refusals == ()
    assert len(looks) == 2


def test_our_own_descriptors_are_no_hindrance(machine, card):
    machine.opens(os.getpid(), card)
    assert names(machine, card) == []


def test_the_disk_that_the_image_lies_on(machine, card):
    machine.mount("8:17", "/media/images", "/dev/sdb1")
    image = machine.write("media/images/node3.img")
    assert names(machine, card, source=image) == ["source", "mounted"]


def test_the_image_itself(machine):
    image = machine.write("home/node3.img", "x" * 512)
    assert names(machine, image, source=image) == ["source"]
    assert names(machine, image, source=machine.write("home/other.img")) == []


@pytest.mark.parametrize("content", ["x" * 512, "", None])
def test_a_file_may_grow_or_not_be_there_yet(machine, content):
    path = machine.at("card.img")
    if content is not None:
        path.write_text(content)
    assert names(machine, path, image_size=1024) == []


def test_a_file_that_a_machine_runs_from(machine):
    path = machine.write("card.img", "x" * 512)
    machine.process(90, namespace=1, comm="qemu")
    machine.opens(90, path)
    assert names(machine, path) == ["open-elsewhere"]


LUKS1 = b"LUKS\xba\xbe\0\x01"


def _write(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_somebodys_volume_needs_consent(machine, card):
    _write(card, 0, LUKS1)

    found = look(machine, card)

    (refusal,) = found.refusals
    assert (refusal.name, refusal.override) == ("foreign-content", "--allow foreign-content")
    assert refusal.reason == "it holds crypto_LUKS"
    assert admit(found, ["foreign-content"]).name == "sdb"


def test_somebodys_volume_in_a_partition_that_the_kernel_did_not_scan(machine, card):
    _write(card, 0, mbr(8 * MIB))
    _write(card, ROOT_START, LUKS1)
    assert [r.reason for r in look(machine, card).refusals] == [
        "it holds crypto_LUKS in partition 2"
    ]


def test_what_is_on_a_card_from_a_pi_is_shown_and_no_hindrance(machine, card, small_master):
    copy_sparse(small_master, card)

    found = look(machine, card)

    assert found.refusals == ()
    assert [(c.number, c.type, c.label) for c in found.contents] == [
        (1, "vfat", "bootfs"),
        (2, "ext4", "rootfs"),
    ]
    assert found.document()["contents"][1]["type"] == "ext4"


def test_a_missing_tool_is_not_an_empty_card(machine, card, tmp_path, monkeypatch):
    monkeypatch.setattr("piimage.run._SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="`blkid` is not installed"):
        look(machine, card)


def test_every_refusal_with_an_override_tells_one_that_the_command_takes(machine):
    odd = {"removable": "0", "queue__logical_block_size": "4096"}
    node = machine.disk("sdc", "8:32", under=SATA, size=2 << 40, **odd)
    _write(node, 0, LUKS1)
    refusals = look(machine, node).refusals
    assert [r.override for r in refusals] == [f"--allow {name}" for name in guard.OVERRIDABLE]


def test_all_reasons_are_told_at_once(machine, card):
    machine.mount("8:17", "/media/card", "/dev/sdb1", kind="vfat")
    machine.process(77, namespace=1, comm="dd")
    machine.opens(77, card)

    with pytest.raises(DeviceRefusedError) as caught:
        admit(look(machine, card, image_size=65 * MIB), ["mounted"])

    assert caught.value.message.splitlines() == [
        f"`{card}` is refused:",
        "    open-elsewhere: `dd` (process 77) has `sdb` open",
        "    too-small: it has 64.0 MiB and the image needs 65.0 MiB",
    ]
    assert caught.value.hint == "`piimage flash --list` shows the devices that can be written to"


def test_volumes_of_a_card_that_piimage_wrote_are_nobodys(tmp_path):
    """A card over Fedora Server is a volume group; only where it says whose it is, and holds nothing else."""
    made = fedora_server.server(43)
    own = label.encode(
        label.CardLabel(cluster="hats", node="n3", number=3, build="0123456789ab", variant="ab")
    )
    images = {
        name: replace(made, boot={**made.boot, **more}).write(tmp_path / f"{name}.img")
        for name, more in {"ours": {label.NAME: own}, "theirs": {}}.items()
    }
    found = {name: contents(path, path.stat().st_size) for name, path in images.items()}

    assert {content.type for content in found["ours"]} == {"vfat", "xfs", "LVM2_member"}
    assert foreign(images["ours"], found["ours"]) == []
    assert [c.type for c in foreign(images["theirs"], found["theirs"])] == ["xfs", "LVM2_member"]
    luks = (*found["ours"], Content(4, 1, "crypto_LUKS"))
    assert len(foreign(images["ours"], luks)) == len(luks) - 1
