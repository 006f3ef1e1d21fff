"""`piimage flash --list` of a machine that is a directory."""

from __future__ import annotations

import json

import pytest
from made_up_machine import MIB, SATA, USB, Machine
from phony import make_phony

from piimage.cli import flash_list
from piimage.disk.sparse import copy_sparse
from piimage.flash.candidates import candidates

NOT_REMOVABLE = "it is neither removable nor on USB nor in an SD slot (sata)"
LABEL = {"cluster": "lab", "node": "node3", "number": 3, "build": "b0b1b2", "variant": "v"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A card that is node3."""
    path = tmp_path_factory.mktemp("written") / "card.img"
    files = {"piimage.json": json.dumps(LABEL).encode()}
    return make_phony(path, root_size=8 * MIB, boot=files)


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    made.disk("sda", "8:0", under=SATA, removable="0")
    made.partition("sda", "sda2", "8:2")
    made.mount("8:2", "/", "/dev/sda2")
    made.disk("zram0", "252:0", under="virtual", removable="0")
    made.disk("loop0", "7:0", under="virtual", removable="0", size=0)
    return made


def text(machine):
    found = "\n".join(flash_list.lines(candidates(machine.host)))
    return found.replace(f"{machine.root}/", "/").splitlines()


def test_no_card(machine):
    assert text(machine) == [
        "no card to write to: put one in, or see below why a device is none",
        "",
        "cannot be written to:",
        "  `/dev/sda`: 64.0 MiB, sata",
        f"    not-removable: {NOT_REMOVABLE}",
        "    system-disk: this machine runs from it (`/`)",
    ]


def test_cards_come_first_with_what_they_hold(machine, written):
    machine.write(f"sys/devices/{USB}/idVendor", "0bda\n")
    copy_sparse(written, machine.disk("sdb", "8:16"))
    machine.disk("sdc", "8:32", size=0)
    machine.disk("sdd", "8:48")
    machine.mount("8:48", "/media/card", "/dev/sdd", kind="vfat")
    machine.link("dev/disk/by-id/usb-Generic_SD-0:0", "../../sdb")

    assert text(machine)[:9] == [
        "can be written to:",
        "  `/dev/sdb`: 64.0 MiB, usb",
        "    holds node3 of lab, build b0b1b2",
        "    /dev/disk/by-id/usb-Generic_SD-0:0",
        "  `/dev/sdd`: 64.0 MiB, usb",
        "    holds nothing known",
        "    `sdd` (vfat) is mounted at `/media/card`: `--unmount` unmounts it",
        "",
        "cannot be written to:",
    ]
    assert "    no-medium: there is no card in it" in text(machine)


def test_an_option_is_named_only_where_it_is_enough(machine):
    machine.disk("sdc", "8:32", under=SATA, removable="0")

    found = text(machine)
    assert f"    not-removable: {NOT_REMOVABLE} (or `--allow not-removable`)" in found
    assert f"    not-removable: {NOT_REMOVABLE}" in found, "of the disk that the machine runs from"


def test_a_user_who_may_not_read_a_card_sees_it_all_the_same(machine, monkeypatch):
    machine.disk("sdb", "8:16")
    monkeypatch.setattr("os.access", lambda *_: False)
    assert text(machine)[:3] == [
        "can be written to:",
        "  `/dev/sdb`: 64.0 MiB, usb",
        '    what it holds only root may read: `sudo "$(which piimage)" flash --list`',
    ]


def test_json_has_candidates_and_others(machine, written, monkeypatch, capsys):
    copy_sparse(written, machine.disk("sdb", "8:16"))
    monkeypatch.setattr("piimage.flash.candidates.candidates", lambda: candidates(machine.host))

    flash_list.show(json_output=True)

    card, disk = json.loads(capsys.readouterr().out)
    assert (card["candidate"], card["node"], card["refusals"]) == (True, "node3", [])
    assert (disk["candidate"], disk["node"]) == (False, None)
    assert (card["devname"], disk["devname"]) == tuple(
        str(machine.host.at(f"dev/{n}")) for n in ("sdb", "sda")
    )
    assert [refusal["name"] for refusal in disk["refusals"]] == ["not-removable", "system-disk"]


def test_a_card_that_is_taken_out_meanwhile_is_left_out(machine):
    machine.disk("sdb", "8:16").unlink()
    assert [each.examined.device.name for each in candidates(machine.host)] == ["sda"]
