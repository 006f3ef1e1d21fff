"""What comes along from an image's RPM repositories, and the script for the guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from piimage.bake import rpm_script
from piimage.bake.dnf_root import own_repositories
from piimage.bake.lock import Layer, Package, Step

ROOT = Path("/scratch/root")


def own(text):
    return own_repositories(text, ROOT).splitlines()


def test_keys_are_inside_the_root_and_checks_are_on():
    found = own(
        "[fedora]\nname=Fedora $releasever\n#baseurl=http://a.example/\nmetalink=https://m.example/?repo=fedora-$releasever\n"
        "enabled=1\ngpgcheck=0\nsslverify=0\nskip_if_unavailable=True\n"
        "gpgkey=file:///etc/pki/rpm-gpg/KEY-$releasever https://a.example/KEY\n"
    )

    assert "gpgkey = file:///scratch/root/etc/pki/rpm-gpg/KEY-$releasever" in found
    assert "metalink = https://m.example/?repo=fedora-$releasever" in found
    assert {"gpgcheck = 1", "sslverify = 1", "skip_if_unavailable = 0"} <= set(found)


@pytest.mark.parametrize(
    "text",
    [
        "[discs]\nbaseurl=file:///srv/discs\n",
        "[discs]\nbaseurl=/srv/discs\n",
        "[list]\nmirrorlist=file:///etc/mirrors\n",
        "[nothing]\nname=x\n",
        "no section=1\n",
        "[a\n",
    ],
)
def test_what_is_of_this_machines_disks_or_broken_gives_nothing(text):
    assert own(text) == []


def test_of_several_places_the_remote_ones_stay():
    found = own(
        "[a]\nbaseurl=file:///x\n  http://a.example/\n  https://b.example/\nproxy=http://p/\n"
    )

    assert "baseurl = http://a.example/ https://b.example/" in found
    assert not any(line.startswith("proxy") for line in found)


@pytest.mark.parametrize("key", ["file:///etc/../../../root/KEY", "https://a.example/KEY", "KEY"])
def test_keys_that_are_no_files_of_the_image_are_left_out(key):
    assert "gpgkey =" in [line.rstrip() for line in own(f"[a]\nbaseurl=http://a/\ngpgkey={key}\n")]


def layer(*packages, steps=()):
    return Layer(base="b", below="0" * 64, roles=(), wanted=(), packages=packages, steps=steps)


def test_the_script_installs_and_asks_for_each_package():
    package = Package(
        name="chrony", version="1:4.7-1.fc43", architecture="aarch64", sha256="0" * 64, size=1, installed=1,
        file="chrony-4.7-1.fc43.aarch64.rpm",
    )  # fmt: skip
    said = rpm_script.script(
        layer(package, steps=(Step("remove", ("ntp",)), Step("unpack", ("chrony",))))
    ).decode()

    assert "installed=chrony-1:4.7-1.fc43.aarch64" in said
    lines = [line for line in said.splitlines() if line.startswith("run_rpm --")]
    assert lines == [
        "run_rpm --erase --nodeps ntp",
        "run_rpm --upgrade /run/piimage/packages/chrony-4.7-1.fc43.aarch64.rpm",
    ]
    assert said.index("\nkeep\n") < said.index("run_rpm --erase") < said.index("\nput_back\n")


def test_a_layer_of_nothing_does_nothing():
    assert rpm_script.script(layer()) == b"exit 0\n"
