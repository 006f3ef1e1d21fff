"""Node 3 of the sample, started in QEMU: what was promised is there, its radio joins its access point and no other,
no cable and no access point keeps it from its prompt, and what is broken is named.

A boot is what takes the time, so the one that is asked everything has the access point too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from piimage.boot.machine import GIB
from piimage.disk.sparse import copy_sparse
from piimage.disk.table import read_table

NODE = "node3"
#: Seconds by which a login may be later than usual; emulated, everything takes about three times as long.
LATER = 30 * 3


@dataclass(frozen=True)
class Played:
    """A rehearsal: exit status, report, its findings by name, and the files that it left."""

    status: int
    report: dict
    files: dict[str, bytes]

    @property
    def findings(self):
        return {finding["name"]: finding for finding in self.report["findings"]}

    @property
    def wrong(self):
        return [finding for finding in self.report["findings"] if finding["ok"] is False]


@pytest.fixture(scope="module")
def play(piimage, sample, artifacts):
    def played(point, *more, output=artifacts):
        words = ("--access-point", point, "--output", output, *more, "--json")
        done = piimage("boot", sample, "--node", "3", *words)
        place = output / "rehearsal" / NODE
        assert not (place / "scratch").exists()
        files = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
        return Played(done.returncode, json.loads(done.stdout), files)

    return played


@pytest.fixture(scope="module")
def joined(play, artifacts):
    """With the access point of cluster.yaml."""
    before = (artifacts / f"{NODE}.img").stat()
    played = play("right")
    after = (artifacts / f"{NODE}.img").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    return played


@pytest.fixture(scope="module")
def refused(play, card):
    """A card as it was flashed, with an access point that has another passphrase, and the wire's cable out until the
    login prompt."""
    return play("wrong-passphrase", "--unplugged", "--disk-size", "6G", output=card.parent)


@pytest.fixture(scope="module")
def card(tmp_path_factory, piimage, sample):
    """A card of 6 GiB that `piimage flash` wrote, full of other data before, its root file system as large as it."""
    path = tmp_path_factory.mktemp("card") / f"{NODE}.img"
    with path.open("wb") as file:
        file.write(b"old!" * (64 << 18))
        file.truncate(6 * GIB)
    words = (path, "--cluster", sample, "--node", "3", "--grow", "--yes")
    assert piimage("flash", *words).returncode == 0
    return path


def test_the_node_comes_up_as_promised(joined, artifacts):
    report = joined.report
    unasked = {f["name"]: f["found"] for f in report["findings"] if f["ok"] is not True}
    names = "plan: share /srv/cluster", "plan: node0.local"
    assert unasked == dict.fromkeys(names, "not asked: needs the other nodes")
    assert joined.wrong == []
    assert (joined.status, report["ok"], report["error"]) == (0, True, None)
    assert {
        "login prompt", "cloud-init", "host name", "/etc/hosts", "machine id", "ssh", "wired address",
        "routes on the wire", "second NIC", "time source", "target", "failed units",
        "root file system grown", "power off", "secrets that nobody can read", "user federico",
        "sudo of federico", "user ops", "sudo of ops", "plan: host certificate",
    } <= joined.findings.keys()  # fmt: skip
    assert report["facts"]["filesystem"]["disk"] > (artifacts / f"{NODE}.img").stat().st_size
    assert report["additions"][0] == "console=ttyAMA0"
    assert json.loads(joined.files["report.json"]) == report
    assert f"{NODE} login:" in joined.files["console.log"].decode(errors="replace")


def test_it_joins_its_access_point_and_has_its_default_route_there(joined):
    found = joined.findings
    assert found["Wi-Fi association"]["found"] == "state COMPLETED, `lab`, WPA2-PSK"
    assert found["Wi-Fi country"]["found"] == "IT"
    assert found["Wi-Fi address"]["found"].startswith("198.51.100.1")
    assert found["default route"]["found"] == "via 198.51.100.1 dev wlan0"
    assert found["routes on the wire"]["found"] == "10.1.10.0/24"


def test_another_passphrase_is_refused(refused):
    found = refused.findings
    assert (refused.status, refused.report["error"], refused.wrong) == (0, None, [])
    assert "refused" in found["Wi-Fi association"]["found"]
    assert "COMPLETED" not in found["Wi-Fi association"]["found"]
    assert found["default route"]["found"] == "no default route"


def test_no_access_point_and_no_cable_keep_it_from_its_prompt(joined, refused):
    usual = joined.report["timings"]["login"]
    assert refused.report["unplugged"] is True
    assert refused.report["timings"]["login"] < usual + LATER


def test_a_flashed_card_has_its_size_already_and_boots(refused, card):
    root = read_table(card).partition(2)
    assert root.start + root.size == 6 * GIB
    assert refused.findings["root file system grown"]["ok"]
    assert refused.findings["host name"]["ok"]


def test_what_no_card_does_is_declared_and_no_secret_is_in_what_is_kept(joined, refused, sample):
    psk = sample.read_text().partition("psk: ")[2].split()[0].encode()
    host_key = (sample.with_suffix(".state") / "hosts" / NODE).read_bytes().split(b"\n")[3]
    assert len(psk) == 64
    for played in (joined, refused):
        assert "systemd.wants=a.service" in played.report["additions"]
        kept = b"".join(played.files.values())
        assert psk not in kept
        assert host_key not in kept


def test_the_card_boots_a_pi_3(piimage, sample, artifacts):
    done = piimage(
        "boot", sample, "--node", "3", "--machine", "raspi3b", "--timeout", "1500", "--json"
    )

    report = json.loads(done.stdout)
    assert (done.returncode, report["error"]) == (0, None)
    assert [finding["name"] for finding in report["findings"]] == ["login prompt"]
    assert report["machine"] == "raspi3b"
    assert report["disk_size"] == 4 * GIB
    console = artifacts / "rehearsal" / NODE / "raspi3b" / "console.log"
    assert f"{NODE} login:" in console.read_text(errors="replace")


def test_a_card_without_a_root_file_system_is_named(piimage, sample, artifacts, tmp_path):
    broken = tmp_path / f"{NODE}.img"
    copy_sparse(artifacts / f"{NODE}.img", broken)
    root = read_table(broken).partition(2)
    with broken.open("r+b") as file:
        file.seek(root.start)
        file.write(bytes(1 << 20))

    done = piimage("boot", sample, "-n", "3", "-o", tmp_path)

    assert done.returncode == 6
    assert "error: the root file system was not found" in done.stderr
    report = json.loads((tmp_path / "rehearsal" / NODE / "report.json").read_bytes())
    assert report["ok"] is False
    assert "not found" in report["error"]
