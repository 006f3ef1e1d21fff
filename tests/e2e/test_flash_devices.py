"""The guard before real drivers, and writes to disks that fail as drivers tell it: one machine, one start.

It has a USB stick, a USB disk, another one with a bad sector, and an SD slot; the kernel's device mapper plays a volume
on the stick, and faults on the disk.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from tiny_card import MIB, make_tiny

from piimage.bake import kernel
from piimage.bake.initramfs import initramfs
from piimage.bases.cache import Cache
from piimage.bases.store import Store
from piimage.emulator import PROGRAM, launched, this_accelerator
from piimage.progress import Quiet

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "piimage"
MODULES = (
    "virtio_blk virtio_pci virtio_console crc32c_generic ext4"
    " xhci_pci usb_storage sd_mod sdhci_pci mmc_block dm_mod dm_flakey"
).split()
LIMIT = 900
#: Of the disk that is worn, in the root file system of what is written to it.
BAD = 0x1234


@pytest.fixture(scope="module")
def told(default_base, tmp_path_factory):
    """What the guest tells, by name."""
    place = tmp_path_factory.mktemp("devices")
    store = Store(progress=Quiet())
    own = kernel.ensure(Cache(progress=Quiet()), Quiet())
    files = {"init": (HERE / "devices_init.sh").read_bytes()}
    (place / "initramfs").write_bytes(initramfs(own, MODULES, files))
    drive(place / "code.img", place / "code", make_tiny(place / "tiny.img"))
    table = bytes(446) + b"\0\xfe\xff\xff\x83\xfe\xff\xff" + struct.pack("<II", 2048, 32768)
    for name, head in (
        ("stick", table.ljust(510, b"\0") + b"\x55\xaa"),
        ("disk", b""),
        ("worn", b""),
        ("card", b""),
    ):
        with (place / name).open("wb") as file:
            file.write(head)
            file.truncate(32 * MIB)
    (place / "said").touch()
    with launched(argv(place, own, store.base(default_base).path), place / "messages") as child:
        deadline = time.monotonic() + LIMIT
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
    lines = [json.loads(line) for line in (place / "said").read_text().splitlines()]
    assert lines, (place / "console").read_text(errors="replace")[-3000:]
    assert lines[-1] == {"what": "end"}, (place / "console").read_text(errors="replace")[-3000:]
    return {line.pop("what"): line for line in lines}


def drive(image, tree, tiny):
    """The package, the guest's script and what it writes to cards, in a file system."""
    shutil.copytree(PACKAGE, tree / "piimage", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "devices_guest.py", tree / "guest.py")
    shutil.copy(tiny, tree / "tiny.img")
    argv = ["mke2fs", "-q", "-t", "ext4", "-d", tree, image, "24m"]
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)


def argv(place, own, root):
    accel = this_accelerator()
    words = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    words += ["-qmp", "stdio", "-M", "virt", "-cpu", accel.cpu, "-smp", "2", "-m", "768"]
    words += ["-accel", "tcg,thread=multi" if accel.emulated else accel.name]
    words += ["-kernel", own.image, "-initrd", place / "initramfs"]
    words += ["-append", "console=ttyAMA0 quiet panic=-1 nokaslr"]
    words += ["-chardev", f"file,id=console,path={place}/console", "-serial", "chardev:console"]
    words += ["-device", "virtio-serial-pci", "-chardev", f"file,id=said,path={place}/said"]
    words += ["-device", "virtserialport,chardev=said,nr=1,name=said"]
    for name, path, option in (
        ("root", root, ",readonly=on"),
        ("code", place / "code.img", ",readonly=on"),
        ("stick", place / "stick", ""),
        ("disk", place / "disk", ""),
        ("card", place / "card", ""),
    ):
        words += ["-drive", f"if=none,id={name},format=raw,file={path}{option}"]
    words += ["-device", "virtio-blk-pci,drive=root", "-device", "virtio-blk-pci,drive=code"]
    words += ["-device", "qemu-xhci"]
    words += ["-device", "usb-storage,drive=stick,removable=on,serial=STICK1"]
    words += ["-device", "usb-storage,drive=disk,serial=DISK2"]
    # What goes wrong with reading this sector is told through USB as a medium error.
    fault = {
        "node-name": "worn",
        "driver": "blkdebug",
        "image": {"driver": "raw", "file": {"driver": "file", "filename": str(place / "worn")}},
        "inject-error": [{"event": "none", "iotype": "read", "errno": 5, "sector": BAD}],
    }
    words += ["-blockdev", json.dumps(fault)]
    words += ["-device", "usb-storage,drive=worn,serial=WORN3"]
    words += ["-device", "sdhci-pci", "-device", "sd-card,drive=card"]
    return [str(word) for word in words]


def test_each_device_is_known_for_what_it_is(told):
    devices = told["listed"]["devices"]
    known = {d["serial"]: (d["transport"], d["removable"], d["size"]) for d in devices}
    assert known["STICK1"] == ("usb", True, 32 * MIB)
    assert known["DISK2"] == ("usb", True, 32 * MIB)
    assert known["WORN3"] == ("usb", True, 32 * MIB)
    (cid,) = [d["serial"] for d in devices if d["transport"] == "mmc"]
    assert (known[cid], len(cid)) == (("mmc", True, 32 * MIB), 32)
    assert len({d["diskseq"] for d in devices}) == len(devices)


def test_cards_are_candidates_and_the_disk_it_runs_from_is_not(told):
    devices = told["listed"]["devices"]
    possible = {Path(d["path"]).name for d in devices if d["candidate"]}
    assert possible == {"sda", "sdb", "sdc", "mmcblk0"}
    (system,) = [d for d in devices if d["path"] == "/dev/vda"]
    assert "system-disk" in {refusal["name"] for refusal in system["refusals"]}


def test_a_partition_that_the_kernel_found(told):
    assert told["partition"]["refusals"] == ["partition"]


def test_the_new_table_is_read_while_the_card_is_held(told):
    assert told["table"] == {"reread": True, "seen": True}
    assert told["identity"] == {"same": True}


def test_a_volume_on_a_partition_is_seen_from_both_sides(told):
    assert told["volume"]["refusals"] == ["in-a-volume"]
    assert "volume" in told["volume"]["itself"]
    assert told["disk"] == {"held": True}
    assert told["volume gone"]["refusals"] == []


def test_a_reader_lets_its_card_go_and_a_slot_cannot(told):
    assert told["eject"]["done"]
    assert not told["eject"]["still"]
    assert not told["eject"]["slot"]


def test_a_disk_becomes_a_card(told):
    good = {"size": 32 * MIB, "rewritten": 0, "retried": False, "table": True, "whole": True}
    assert told["good"] == good


def test_a_medium_error_is_named_and_leaves_no_table(told):
    found = told["medium error"]
    assert found["code"] == 4
    assert BAD in named(found)
    assert "partition 2, ext4 rootfs" in found["message"]
    assert not found["table"]


def named(found):
    """The sectors that a message names: no more than a few, so that it is of use."""
    start, end = re.search(r"byte (\d+) to (\d+)", found["message"]).groups()
    assert int(end) - int(start) <= 65536
    return range(int(start) // 512, int(end) // 512)


def test_an_alias_is_named_a_fake_before_the_body_is_written(told):
    """Its second half is its first one."""
    found = told["alias"]
    assert found["code"] == 4
    assert "fake" in found["hint"]
    assert not found["table"]


@pytest.mark.parametrize("phase", ["write", "verify"])
def test_a_card_that_is_pulled_is_said_to_be_gone(told, phase):
    """The kernel says of a write that there is no room, and of a read that the card ends."""
    assert told[f"pulled in {phase}"]["code"] == 7
    assert "the card is gone" in told[f"pulled in {phase}"]["message"]


def test_sectors_that_refuse_are_named(told):
    found = told["bad sectors"]
    assert found["code"] == 7
    assert 5000 in named(found)
    assert not found["table"]


def test_a_card_that_now_and_then_refuses_is_tried_again(told):
    """For two seconds of each four it takes no write; what fails for longer than all tries is told."""
    found = told["flaky"]
    assert found["retried"]
    assert found["table"] == ("code" not in found)
    assert found.get("code", 7) == 7


@pytest.mark.parametrize("fault", ["pulled in write", "pulled in verify", "bad sectors", "flaky"])
def test_the_next_write_makes_it_whole(told, fault):
    found = told[f"{fault}, resumed"]
    assert found["table"], found
    assert found["whole"]
