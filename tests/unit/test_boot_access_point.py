"""The rehearsed access point: what hostapd is told, how QEMU hands it to the guest, where its secret lies."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from piimage.boot import access_point, radio_kit
from piimage.boot.access_point import AccessPoint
from piimage.cluster import SecretRef, Wifi
from piimage.errors import UnsupportedError

PSK = "ab" * 32
WIFI = Wifi(ssid='lab "two"', country="IT", psk=SecretRef("hash", PSK))
SUBNET = IPv4Network("10.1.10.0/24")


def radio(point, *, wifi=WIFI, subnet=SUBNET):
    return access_point.radio(Path("kit.img"), point, wifi, PSK, subnet)


def options(text):
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_right_access_point_has_the_clusters_name_and_key():
    found = options(radio(AccessPoint.RIGHT).configuration)

    assert bytes.fromhex(found["ssid2"]).decode() == 'lab "two"'
    assert found["wpa_psk"] == PSK
    assert (found["wpa"], found["wpa_key_mgmt"], found["ignore_broadcast_ssid"]) == (
        "2",
        "WPA-PSK",
        "0",
    )
    assert not {"country_code", "ieee80211d"} & set(found), (
        "the node's own country must be in force"
    )


@pytest.mark.parametrize("version", ["257.9-1~deb13u1", "256", "1:258.1-1.fc43", ""])
def test_a_system_that_starts_a_radio_may_have_one(version):
    access_point.check_guest("n0", version)


@pytest.mark.parametrize("version", ["252.39-1~deb12u1", "255.4-1ubuntu8", "1:247.3-7"])
def test_an_older_system_is_refused_before_it_is_booted(version):
    with pytest.raises(
        UnsupportedError, match=r"`n0` cannot be given a radio: its base has systemd 2\d\d, "
    ):
        access_point.check_guest("n0", version)


def test_a_hidden_network_is_hidden():
    made = radio(AccessPoint.RIGHT, wifi=replace(WIFI, hidden=True))
    assert options(made.configuration)["ignore_broadcast_ssid"] == "1"


def test_the_wrong_one_differs_in_its_key_alone():
    right, wrong = (
        options(radio(point).configuration)
        for point in (AccessPoint.RIGHT, AccessPoint.WRONG_PASSPHRASE)
    )
    assert {key for key in right if right[key] != wrong[key]} == {"wpa_psk"}
    assert len(bytes.fromhex(wrong["wpa_psk"])) == 32


def test_an_absent_one_is_a_radio_alone():
    made = radio(AccessPoint.ABSENT)
    assert made.configuration is None
    assert "exec sh /run/piimage-kit/start /run/piimage-kit absent'\n" in made.unit


@pytest.mark.parametrize(
    ("subnet", "net"), [("10.1.10.0/24", "198.51.100"), ("198.51.100.16/28", "203.0.113")]
)
def test_its_network_is_not_the_wires(subnet, net):
    made = radio(AccessPoint.RIGHT, subnet=IPv4Network(subnet))
    assert made.gateway == f"{net}.1"
    assert made.unit.rstrip().endswith(f" {net}'")


def test_the_guest_gets_it_by_fw_cfg_and_the_host_keeps_it_to_itself(tmp_path):
    words = access_point.arguments(radio(AccessPoint.RIGHT), tmp_path)

    assert "readonly=on" in words[words.index("-drive") + 1]
    named = [word for word in words if word.startswith("name=opt/io.systemd.credentials/")]
    names = [word.removeprefix("name=").partition(",")[0] for word in named]
    assert [name.rpartition("/")[2] for name in names] == [
        "systemd.extra-unit.a.service", "piimage.hostapd",
    ]  # fmt: skip
    assert all(len(name) <= 55 for name in names), "fw_cfg takes no longer name"
    assert PSK not in " ".join(words)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert PSK in (tmp_path / "piimage.hostapd").read_text()
    assert PSK not in (tmp_path / "systemd.extra-unit.a.service").read_text()


def test_its_secret_is_not_shown():
    assert PSK not in repr(radio(AccessPoint.RIGHT))


def test_the_real_qemu_takes_the_arguments(tmp_path):
    kit = tmp_path / "kit, with a comma.img"
    kit.write_bytes(bytes(1 << 20))
    made = replace(radio(AccessPoint.RIGHT), kit=kit)
    argv = [
        "qemu-system-aarch64",
        "-M",
        "virt",
        "-nodefaults",
        "-display",
        "none",
        "-S",
        "-qmp",
        "stdio",
    ]

    done = subprocess.run(
        [*argv, *access_point.arguments(made, tmp_path)],
        input='{"execute": "qmp_capabilities"}{"execute": "quit"}',
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")


def test_what_starts_it_in_the_guest_is_good_shell():
    start = Path(radio_kit.__file__).with_name(radio_kit.START)
    done = subprocess.run(["sh", "-n", start], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
