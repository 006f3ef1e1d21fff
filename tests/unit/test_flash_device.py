"""What a device is, from a made-up /sys."""

from __future__ import annotations

import dataclasses
import fcntl
from typing import Any

import pytest
from made_up_machine import MIB, MMC, SATA, USB, Machine

from piimage.errors import DeviceRefusedError, ExitCode
from piimage.flash.device import read_device
from piimage.flash.eject import eject


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_card_in_a_usb_reader(machine):
    machine.write(f"sys/devices/{USB}/idVendor", "0bda\n")
    machine.write(f"sys/devices/{USB}/serial", "201209\n")
    machine.write(f"sys/devices/{USB}/host6/target6:0:0/6:0:0:0/vendor", "Generic \n")
    machine.write(f"sys/devices/{USB}/host6/target6:0:0/6:0:0:0/model", "SD/MMC CRW      \n")
    node = machine.disk("sdb", "8:16")
    device = machine.at(f"sys/devices/{USB}/host6/target6:0:0/6:0:0:0")
    machine.link(f"sys/devices/{USB}/block/sdb/device", device)
    machine.link("dev/disk/by-id/usb-Generic_SD-0:0", "../../sdb")
    machine.link("dev/disk/by-id/usb-Other-0:0", "../../null")

    found = read_device(node, machine.host)

    assert (found.kind, found.name, found.whole, found.number) == ("disk", "sdb", "sdb", (8, 16))
    assert (found.size, found.sector, found.diskseq) == (64 * MIB, 512, 7)
    assert (found.transport, found.removable, found.read_only) == ("usb", True, False)
    assert (found.model, found.serial) == ("Generic SD/MMC CRW", "201209")
    assert [path.name for path in found.by_id] == ["usb-Generic_SD-0:0"]
    assert found.title == f"`{node}`: 64.0 MiB, Generic SD/MMC CRW, serial 201209, usb"


def test_a_card_in_an_mmc_slot_is_known_by_its_cid(machine):
    cid = "035344534336344780a1b2c3d4014b00"
    facts = {"removable": "0", "device__type": "SD", "device__cid": cid, "device__name": "SC64G"}
    node = machine.disk("mmcblk0", "179:0", under=MMC, **facts)

    found = read_device(node, machine.host)

    assert (found.transport, found.removable, found.serial, found.model) == (
        "mmc",
        True,
        cid,
        "SC64G",
    )


def test_an_emmc_chip_is_not_removable(machine):
    node = machine.disk("mmcblk1", "179:8", under=MMC, removable="0", device__type="MMC")
    assert not read_device(node, machine.host).removable


def test_a_sata_disk_tells_its_serial_in_a_page_of_product_data(machine):
    page = "\0\0\0\x08WD-12345"
    node = machine.disk("sda", "8:0", under=SATA, removable="0", device__vpd_pg80=page)

    found = read_device(node, machine.host)

    assert (found.transport, found.removable, found.serial) == ("sata", False, "WD-12345")


def test_a_partition_knows_its_disk(machine):
    machine.disk("sdb", "8:16")
    node = machine.partition("sdb", "sdb1", "8:17")

    found = read_device(node, machine.host)

    assert (found.kind, found.name, found.whole, found.diskseq) == ("partition", "sdb1", "sdb", 7)


def test_a_kernel_without_diskseq(machine):
    node = machine.disk("sdb", "8:16", diskseq="")
    assert read_device(node, machine.host).diskseq is None


def test_a_by_id_path_names_exactly_and_leads_to_the_node(machine):
    node = machine.disk("sdb", "8:16")
    machine.link("dev/disk/by-id/usb-Generic_SD-0:0", "../../sdb")

    found = read_device(machine.at("dev/disk/by-id/usb-Generic_SD-0:0"), machine.host)

    assert found.node == node
    assert found.named_exactly()
    assert not read_device(node, machine.host).named_exactly()


def test_a_file_is_known_by_its_inode(machine, tmp_path):
    path = machine.write("card.img", "x" * 1024)

    found = read_device(path, machine.host)

    assert (found.kind, found.size, found.number, found.is_file) == ("file", 1024, None, True)
    assert found.place == (path.stat().st_dev, path.stat().st_ino)
    assert found.named_exactly()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("dev/sdx", "there is no `{}`"),
        ("dev/disk/by-id/usb-gone", "there is no `{}`"),
        ("absent/card.img", "there is no directory `{0.parent}`"),
        ("directory", "`{}` is a directory"),
        ("/dev/null", "`{}` is neither a block device nor a regular file"),
    ],
)
def test_what_is_no_device(machine, what, words):
    path = machine.at(what) if what != "/dev/null" else machine.root.parent / "/dev/null"
    if what == "directory":
        path.mkdir()

    with pytest.raises(DeviceRefusedError) as caught:
        read_device(path, machine.host)

    assert caught.value.message == words.format(path)
    assert caught.value.exit_code is ExitCode.DEVICE_REFUSED


def test_a_file_that_is_not_there_yet(machine):
    found = read_device(machine.at("card.img"), machine.host)
    assert (found.kind, found.size, found.place) == ("file", 0, None)
    assert found.identity != read_device(machine.at("other.img"), machine.host).identity


def test_the_document_is_what_json_can_say(machine):
    document = read_device(machine.disk("sdb", "8:16"), machine.host).document()
    assert (document["number"], document["size"], document["serial"]) == ("8:16", 64 * MIB, None)


@pytest.mark.parametrize("field", ["diskseq", "size", "serial", "number", "sector"])
def test_another_medium_has_another_identity(machine, field):
    found = read_device(machine.disk("sdb", "8:16"), machine.host)
    change: dict[str, Any] = {field: (8, 32) if field == "number" else "9"}
    other = dataclasses.replace(found, **change)
    assert found.identity == read_device(found.path, machine.host).identity
    assert found.identity != other.identity


@pytest.mark.parametrize(
    ("unlocks", "answer", "gone"), [(True, 0, True), (False, 0, True), (True, 2, False)]
)
def test_a_card_is_let_go_once_its_lock_is_off(tmp_path, monkeypatch, unlocks, answer, gone):
    """A number above zero is what the device itself refuses."""
    path = tmp_path / "card"
    path.touch()
    asked = []

    def ioctl(_, request):
        asked.append(request)
        if request == 0x5381 and not unlocks:
            raise OSError(25, "not for this device")
        return answer if request == 0x5309 else 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)

    assert eject(read_device(path)) is gone
    assert asked == [0x5381, 0x5309]
