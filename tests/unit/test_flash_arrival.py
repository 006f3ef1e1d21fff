"""Cards as they come in, one after the other, on a machine that is a directory."""

from __future__ import annotations

import pytest
from made_up_machine import SATA, USB, Machine

from piimage.flash.arrival import Arrivals


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    made.disk("sda", "8:0", under=SATA, removable="0")
    made.partition("sda", "sda2", "8:2")
    made.mount("8:2", "/", "/dev/sda2")
    return made


class Desk:
    """What happens at each of the looks that find nothing; running out of it is a failure."""

    def __init__(self):
        self.events = []
        self.looks = 0

    def then(self, event=lambda: None):
        self.events.append(event)

    def sleep(self, _):
        assert self.looks < len(self.events), "it waits for ever"
        self.looks += 1
        self.events[self.looks - 1]()


@pytest.fixture
def desk():
    return Desk()


def fact(machine, disk, name, value):
    machine.write(f"sys/block/{disk}/{name}", f"{value}\n")


def unasked(candidate):
    pytest.fail(f"told of {candidate.examined.device.name}")


def take_out(machine, disk):
    fact(machine, disk, "size", 0)


def put_in(machine, disk, diskseq, size=131072):
    fact(machine, disk, "size", size)
    fact(machine, disk, "diskseq", diskseq)


def test_a_card_that_is_there_at_the_beginning(machine, desk):
    machine.disk("sdb", "8:16")
    found = Arrivals(host=machine.host, sleep=desk.sleep).next(unasked)
    assert found.examined.device.name == "sdb"
    assert desk.looks == 0


def test_one_reader_and_a_stack_of_cards(machine, desk):
    machine.disk("sdb", "8:16", size=0)
    desk.then()
    desk.then(lambda: put_in(machine, "sdb", 21))
    arrivals = Arrivals(host=machine.host, sleep=desk.sleep)

    assert arrivals.next(unasked).examined.device.diskseq == 21
    desk.then()
    desk.then(lambda: take_out(machine, "sdb"))
    desk.then(lambda: put_in(machine, "sdb", 22))
    assert arrivals.next(unasked).examined.device.diskseq == 22
    assert desk.looks == 5


def test_a_card_changed_between_two_looks_is_another(machine, desk):
    machine.disk("sdb", "8:16")
    arrivals = Arrivals(host=machine.host, sleep=desk.sleep)
    arrivals.next(unasked)
    desk.then(lambda: put_in(machine, "sdb", 8))
    assert arrivals.next(unasked).examined.device.diskseq == 8


def test_a_kernel_without_diskseq_sees_a_card_that_was_away(machine, desk):
    machine.disk("sdb", "8:16", diskseq="")
    arrivals = Arrivals(host=machine.host, sleep=desk.sleep)
    arrivals.next(unasked)
    desk.then(lambda: take_out(machine, "sdb"))
    desk.then(lambda: put_in(machine, "sdb", ""))
    assert arrivals.next(unasked).examined.device.name == "sdb"


def test_two_cards_at_once_are_given_one_after_the_other(machine, desk):
    machine.disk("sdb", "8:16")
    machine.disk("sdc", "8:32")
    arrivals = Arrivals(host=machine.host, sleep=desk.sleep)
    names = [arrivals.next(unasked).examined.device.name for _ in range(2)]
    assert names == ["sdb", "sdc"]


def test_a_reader_that_is_plugged_in_later(machine, desk):
    desk.then(lambda: machine.disk("sdb", "8:16"))
    assert Arrivals(host=machine.host, sleep=desk.sleep).next(unasked).examined.device.name == "sdb"


def test_udev_looking_into_a_new_card_is_waited_for(machine, desk):
    node = machine.disk("sdb", "8:16")
    machine.process(77, namespace=1, comm="systemd-udevd")
    machine.opens(77, node)
    desk.then(lambda: machine.at("proc/77/fd/3").unlink())
    assert Arrivals(host=machine.host, sleep=desk.sleep).next(unasked).examined.device.name == "sdb"
    assert desk.looks == 1


def test_a_card_that_may_not_be_written_to_is_told_once(machine, desk):
    told = []
    desk.then(lambda: machine.disk("sdb", "8:16", ro="1"))
    desk.then()
    desk.then(lambda: machine.disk("sdc", "8:32"))
    found = Arrivals(host=machine.host, sleep=desk.sleep).next(told.append)
    assert found.examined.device.name == "sdc"
    assert [each.examined.device.name for each in told] == ["sdb"]


def test_a_mounted_card_is_one_and_the_command_decides_about_the_mount(machine, desk):
    machine.disk("sdb", "8:16")
    machine.mount("8:16", "/media/card", "/dev/sdb")
    found = Arrivals(host=machine.host, sleep=desk.sleep).next(unasked)
    assert [refusal.name for refusal in found.examined.refusals] == ["mounted"]


def test_what_the_user_accepts(machine, desk):
    machine.disk("sdb", "8:16", under=SATA, removable="0")
    found = Arrivals(
        accepted=frozenset({"not-removable"}), host=machine.host, sleep=desk.sleep
    ).next(unasked)
    assert found.examined.device.name == "sdb"


def test_with_a_serial_number_other_readers_are_passed_over(machine, desk):
    machine.write(f"sys/devices/{USB}/idVendor", "0bda\n")
    machine.write(f"sys/devices/{USB}/serial", "201209\n")
    machine.disk("sdb", "8:16", under=f"{SATA}/usb2")
    machine.disk("sdc", "8:32")
    machine.link(f"sys/devices/{USB}/block/sdc/device", machine.at(f"sys/devices/{USB}/host6"))
    machine.at(f"sys/devices/{USB}/host6").mkdir()
    found = Arrivals(serial="201209", host=machine.host, sleep=desk.sleep).next(unasked)
    assert found.examined.device.name == "sdc"


def test_one_reader_that_was_named_is_the_only_one(machine, desk):
    machine.disk("sdb", "8:16")
    name = machine.at("dev/disk/by-id/usb-Generic_SD-0:0")
    arrivals = Arrivals(only=name, host=machine.host, sleep=desk.sleep)
    desk.then()
    desk.then(lambda: machine.disk("sdc", "8:32"))
    desk.then(lambda: machine.link("dev/disk/by-id/usb-Generic_SD-0:0", "../../sdc"))
    found = arrivals.next(unasked)
    assert (found.examined.device.name, found.examined.device.path) == ("sdc", name)
    assert found.examined.device.named_exactly()
