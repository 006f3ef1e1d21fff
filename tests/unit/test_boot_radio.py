"""What a node says of its Wi-Fi, and the verdicts on it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from piimage.boot import access_point, guest, radio
from piimage.boot.access_point import AccessPoint
from piimage.boot.qemu import Vm
from piimage.cluster import SecretRef, Wifi
from piimage.errors import RehearsalError

PSK = "ab" * 32
WIFI = Wifi(ssid="caffè", country="IT", psk=SecretRef("hash", PSK))
DEFAULT = {"dst": "default", "gateway": "198.51.100.1", "dev": "wlan0"}
RIGHT = {
    "state": "COMPLETED", "ssid": r"caff\xc3\xa8", "key_management": "WPA2-PSK",
    "address": "198.51.100.100/24", "refused": 0, "radio": True, "waited": 4.0,
    "country": "global\ncountry IT: DFS-ETSI\n", "defaults": [DEFAULT],
}  # fmt: skip
WRONG = {
    **RIGHT, "state": "SCANNING", "ssid": None, "key_management": None, "address": None, "refused": 3,
    "defaults": [],
}  # fmt: skip
ABSENT = {**WRONG, "refused": 0}
SAID = {
    AccessPoint.RIGHT: RIGHT,
    AccessPoint.WRONG_PASSPHRASE: WRONG,
    AccessPoint.ABSENT: ABSENT,
}


def judged(found, point=AccessPoint.RIGHT, gateway=None):
    made = access_point.radio(Path("kit"), point, WIFI, PSK, IPv4Network("10.1.10.0/24"))
    return {f.name: f for f in radio.judge(found, made, WIFI, gateway=gateway)}


def failed(*words, **more):
    return [name for name, finding in judged(*words, **more).items() if not finding.ok]


@pytest.mark.parametrize("point", AccessPoint)
def test_each_access_point_leads_where_it_should(point):
    assert failed(SAID[point], point) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"state": "4WAY_HANDSHAKE"}, ["Wi-Fi association"]),
        ({"ssid": "other"}, ["Wi-Fi association"]),
        ({"key_management": "NONE"}, ["Wi-Fi association"]),
        ({"country": "global\ncountry 00: DFS-UNSET\n"}, ["Wi-Fi country"]),
        ({"country": ""}, ["Wi-Fi country"]),
        ({"address": None}, ["Wi-Fi address"]),
        ({"address": "10.1.10.3/24"}, ["Wi-Fi address"]),
        ({"defaults": []}, ["default route"]),
        ({"defaults": [{**DEFAULT, "dev": "eth0"}]}, ["default route"]),
        ({"defaults": [DEFAULT, {**DEFAULT, "dev": "eth0"}]}, ["default route"]),
    ],
)
def test_each_promise_can_be_broken(change, names):
    assert failed({**copy.deepcopy(RIGHT), **change}) == names


def test_a_wrong_passphrase_that_works_is_a_failure():
    assert failed(RIGHT, AccessPoint.WRONG_PASSPHRASE) == ["Wi-Fi association", "default route"]


def test_a_wrong_passphrase_must_be_seen_to_be_refused():
    assert failed(ABSENT, AccessPoint.WRONG_PASSPHRASE) == ["Wi-Fi association"]


def test_an_absent_access_point_without_a_radio_proves_nothing():
    assert failed({**ABSENT, "state": None, "radio": False}, AccessPoint.ABSENT) == [
        "Wi-Fi association"
    ]


def test_a_gateway_on_the_wire_is_expected_where_the_cluster_has_one():
    wired = {"dst": "default", "gateway": "10.1.10.1", "dev": "eth0"}
    assert failed({**RIGHT, "defaults": [DEFAULT, wired]}, gateway="10.1.10.1") == []
    assert failed(RIGHT, gateway="10.1.10.1") == ["default route"]


def test_without_sudo_it_is_not_asked():
    finding = judged(None)["Wi-Fi association"]
    assert (finding.ok, finding.found) == (
        None, "not asked: the first user has no passwordless sudo",
    )  # fmt: skip


# --- in the guest ------------------------------------------------------------------------------------------


class Machine(Vm):
    running = True

    def __init__(self):
        pass

    def failure(self, words):
        return RehearsalError(words)


@pytest.fixture
def way(tmp_path, monkeypatch):
    """An ssh that runs the guest's program here, with tools that say what `tools` holds."""
    tools = tmp_path / "bin"
    tools.mkdir()

    def put(name, body):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)

    put("ssh", f'[ "$5" = "sudo -n python3 -" ] && exec {sys.executable} -')
    put("iw", "printf 'global\\ncountry IT: DFS-ETSI\\n'")
    put("wpa_cli", "printf 'wpa_state=COMPLETED\\nssid=caff\\\\xc3\\\\xa8\\nkey_mgmt=WPA2-PSK\\n'")
    link = [{"addr_info": [{"local": "198.51.100.100", "prefixlen": 24}]}]
    put(
        "ip",
        f"case $* in *address*) echo '{json.dumps(link)}' ;; *) echo '{json.dumps([DEFAULT])}' ;; esac",
    )
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(guest, "_PAUSE", 0.02)
    access = guest.Access(tmp_path / "config", "node0")
    return access, put


def test_a_node_tells_what_it_sees(way):
    found = radio.ask(way[0], Machine(), AccessPoint.RIGHT, wait=5, reach=1)

    assert failed(found) == []
    assert found["waited"] < 5


def test_it_waits_for_the_route_that_comes_after_the_address(way, tmp_path):
    link = [{"addr_info": [{"local": "198.51.100.100", "prefixlen": 24}]}]
    way[1](
        "ip",
        f"case $* in *address*) echo '{json.dumps(link)}'; exit ;; esac\n"
        f"[ -e {tmp_path}/asked ] && echo '{json.dumps([DEFAULT])}'; touch {tmp_path}/asked",
    )

    found = radio.ask(way[0], Machine(), AccessPoint.RIGHT, wait=5, reach=1)

    assert failed(found) == []


def test_it_waits_no_longer_than_it_may(way):
    way[1]("wpa_cli", "exit 255")

    found = radio.ask(way[0], Machine(), AccessPoint.WRONG_PASSPHRASE, wait=0.1, reach=30)

    assert (found["state"], found["radio"]) == (None, False)


def test_a_user_without_sudo_is_told_apart_from_a_failure(way):
    way[1]("ssh", "cat >/dev/null; echo 'sudo: a password is required' >&2; exit 1")
    assert radio.ask(way[0], Machine(), AccessPoint.RIGHT, wait=1, reach=1) is None

    way[1]("ssh", "cat >/dev/null; echo 'ValueError: x' >&2; exit 1")
    with pytest.raises(RehearsalError, match="about its Wi-Fi failed: ValueError: x"):
        radio.ask(way[0], Machine(), AccessPoint.RIGHT, wait=1, reach=1)


def test_its_program_needs_nothing_of_ours():
    source = Path(radio.__file__).with_name("inside_radio.py")
    done = subprocess.run(
        [sys.executable, "-I", source],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": ""},
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["country"] == ""
