"""Node 3 of the sample with a radio: it joins its access point and no other, and neither keeps it from its prompt."""

from __future__ import annotations

import json

import pytest

NODE = "node3"
#: Seconds by which a login may be later than usual; emulated, everything takes about three times as long.
LATER = 30 * 3


@pytest.fixture(scope="module")
def played(piimage, sample, artifacts):
    """The report for each access point, by name."""
    reports = {}
    for point in ("right", "wrong-passphrase"):
        done = piimage("boot", sample, "--node", "3", "--access-point", point, "--json")
        reports[point] = json.loads(done.stdout) | {"status": done.returncode}
    return reports


def findings(report):
    return {finding["name"]: finding for finding in report["findings"]}


def test_it_joins_its_access_point_and_has_its_default_route_there(played):
    report = played["right"]
    found = findings(report)

    assert (report["status"], report["error"]) == (0, None)
    assert [f for f in report["findings"] if f["ok"] is False] == []
    assert found["Wi-Fi association"]["found"] == "state COMPLETED, `lab`, WPA2-PSK"
    assert found["Wi-Fi country"]["found"] == "IT"
    assert found["Wi-Fi address"]["found"].startswith("198.51.100.1")
    assert found["default route"]["found"] == "via 198.51.100.1 dev wlan0"
    assert found["routes on the wire"]["found"] == "10.1.10.0/24"


def test_another_passphrase_is_refused(played):
    report = played["wrong-passphrase"]
    found = findings(report)

    assert (report["status"], report["error"]) == (0, None)
    assert [f for f in report["findings"] if f["ok"] is False] == []
    assert "refused" in found["Wi-Fi association"]["found"]
    assert "COMPLETED" not in found["Wi-Fi association"]["found"]
    assert found["default route"]["found"] == "no default route"


def test_no_access_point_keeps_it_from_its_prompt(played):
    usual = played["right"]["timings"]["login"]
    assert played["wrong-passphrase"]["timings"]["login"] < usual + LATER


def test_what_no_card_does_is_declared_and_the_passphrase_is_not(played, sample, artifacts):
    psk = sample.read_text().partition("psk: ")[2].split()[0]
    for report in played.values():
        assert "systemd.wants=a.service" in report["additions"]
        assert psk not in json.dumps(report)
    place = artifacts / "rehearsal" / NODE
    kept = b"".join(path.read_bytes() for path in place.iterdir() if path.is_file())
    assert psk.encode() not in kept
    assert not (place / "scratch").exists()
