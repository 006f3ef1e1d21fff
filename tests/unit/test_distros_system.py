"""What looks alike is told apart; what is unknown is refused with what was seen."""

from __future__ import annotations

from dataclasses import replace

import phony_facts as phony
import pytest

from piimage.distros.family import family
from piimage.distros.system import recognise
from piimage.errors import UnsupportedError
from piimage.facts import OsRelease

ISSUE = (
    "Raspberry Pi reference 2026-06-18\n"
    "Generated using pi-gen, https://github.com/RPi-Distro/pi-gen, 0123abcd, stage2\n"
)


def facts(name, version="13", like=(), issue=None, codename="", **more):
    os = OsRelease(id=name, version_id=version, id_like=like, codename=codename, pretty="Odd 1")
    return replace(phony.debian(), os=os, rpi_issue=issue, **more)


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (facts("debian", codename="trixie"), "debian", "Debian 13 (trixie)"),
        (
            facts("debian", issue=ISSUE, codename="trixie"),
            "raspios",
            "Raspberry Pi OS 13 (trixie) Lite of 2026-06-18",
        ),
        (
            facts("raspbian", "11", ("debian",), ISSUE.replace("stage2", "stage4")),
            "raspios",
            "Raspberry Pi OS 11 desktop of 2026-06-18",
        ),
        (facts("raspbian", "11", ("debian",)), "raspios", "Raspberry Pi OS 11"),
        (facts("ubuntu", "24.04", ("debian",)), "ubuntu", "Ubuntu 24.04"),
        (facts("pop", "24.04", ("ubuntu", "debian")), "ubuntu", "Ubuntu 24.04"),
        (facts("ubuntu", "24.04", ("debian",), ISSUE), "ubuntu", "Ubuntu 24.04"),
        (facts("debian", issue="my own image\n"), "debian", "Debian 13"),
        (facts("fedora", "43"), "fedora", "Fedora 43"),
    ],
)
def test_what_looks_alike_is_told_apart(found, kind, words):
    assert recognise(found).kind == kind
    assert recognise(found).words == words


def test_a_stranger_is_refused_with_what_was_seen():
    with pytest.raises(UnsupportedError) as error:
        recognise(facts("alpine", "3.22", ("busybox",)))

    assert error.value.message == (
        "the image's system is none that piimage knows; saw: os-release has `ID=alpine` and"
        " `ID_LIKE=busybox`, `Odd 1`; no rpi-issue; partitions 1 vfat `RASPIFIRM`, 2 ext4 `RASPIROOT`,"
        " the firmware's mounted at `/boot/firmware`; network `netplan-networkd`"
    )
    assert "known are Debian, Raspberry Pi OS, Ubuntu, Fedora" in (error.value.hint or "")


def test_gpio_belongs_to_dialout_on_ubuntu_alone():
    assert "dialout" in family(facts("ubuntu", "24.04")).groups["gpio"]
    assert family(facts("debian")).groups["gpio"] == ("gpio",)
    assert family(facts("ubuntu", "24.04")).name == "debian"
