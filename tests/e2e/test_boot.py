"""Node 3 of the sample, started in QEMU: what was promised is there, and what is broken is named."""

from __future__ import annotations

import json

from piimage.boot.machine import GIB
from piimage.disk.sparse import copy_sparse
from piimage.disk.table import read_table

NODE = "node3"


def test_the_node_comes_up_as_promised(piimage, sample, artifacts):
    before = (artifacts / f"{NODE}.img").stat()

    done = piimage("boot", sample, "--node", "3", "--json")

    report = json.loads(done.stdout)
    unasked = [f for f in report["findings"] if f["ok"] is not True]
    assert [(f["name"], f["ok"], f["found"]) for f in unasked] == [
        ("plan: share /srv/cluster", None, "not asked: needs the other nodes")
    ]
    assert (done.returncode, report["ok"], report["error"]) == (0, True, None)
    names = {finding["name"] for finding in report["findings"]}
    assert {
        "login prompt", "cloud-init", "host name", "/etc/hosts", "machine id", "ssh", "wired address",
        "routes on the wire", "second NIC", "time source", "target", "failed units",
        "root file system grown", "power off", "secrets that nobody can read", "user federico",
        "sudo of federico", "user ops", "sudo of ops", "plan: host certificate",
    } <= names  # fmt: skip
    assert report["facts"]["filesystem"]["disk"] > before.st_size
    assert report["additions"][0] == "console=ttyAMA0"
    place = artifacts / "rehearsal" / NODE
    assert json.loads((place / "report.json").read_bytes()) == report
    assert f"{NODE} login:" in (place / "console.log").read_text(errors="replace")
    assert not (place / "scratch").exists()
    after = (artifacts / f"{NODE}.img").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_no_secret_is_in_the_report(sample, artifacts):
    place = artifacts / "rehearsal" / NODE
    kept = b"".join(path.read_bytes() for path in place.iterdir() if path.is_file())
    psk = sample.read_text().partition("psk: ")[2].split()[0].encode()
    host_key = (sample.with_suffix(".state") / "hosts" / NODE).read_bytes().split(b"\n")[3]

    assert len(psk) == 64
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
