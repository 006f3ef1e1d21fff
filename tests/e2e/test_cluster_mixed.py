"""One cluster over two vendors' images: Raspberry Pi OS trixie at its head, bookworm under its worker.

They differ in whatever they may: cloud-init of the vendor's and one that was baked in, netplan and NetworkManager by
itself, a user to rename and none, how the root grows. The share, the clocks, trust and MPI have to work all the same.
"""

from __future__ import annotations

import json

import pytest
import vendors

pytestmark = pytest.mark.matrix
CLUSTER = """\
version: 1
name: mixed
users:
  - {name: ada, uid: 1200, rename_from: auto, sudo: nopasswd, password: locked}
  - {name: ops, uid: 1201, sudo: nopasswd}
network:
  wired: {subnet: 10.77.0.0/24, first: 10.77.0.40}
shares: [{path: /srv/cluster, server: head}]
mpi: {flavour: openmpi, slots: 2}
roles:
  head: {base: trixie}
  worker: {base: bookworm}
nodes: {count: 2, name: "m{n}"}
"""
NODES = ["m0", "m1"]


@pytest.fixture(scope="module")
def played(tmp_path_factory, default_base, piimage):
    """Exit status and report of one rehearsal, and the report of each node."""
    source = tmp_path_factory.mktemp("mixed") / "cluster.yaml"
    source.write_text(CLUSTER)
    wanted = {"trixie": "raspios-trixie", "bookworm": "raspios-bookworm"}
    with vendors.imported(default_base, wanted, piimage) as there:
        done = piimage("build", source, "--all", cache=there.cache)
        assert done.returncode == 0, done.stderr
        words = ("boot", source, "--all", "--smoke", "--json")
        done = piimage(*words, cache=there.cache, timeout=2400)
    place = source.parent / "dist/mixed/rehearsal"
    nodes = {name: json.loads((place / name / "report.json").read_bytes()) for name in NODES}
    return done.returncode, json.loads(done.stdout), nodes


def test_the_smoke_test_passes_on_both(played):
    status, report, _ = played

    assert (status, report["problems"], report["ok"]) == (0, [], True)
    smoke = report["smoke"]
    assert (smoke["ok"], smoke["failures"], smoke["mpi"]["ranks"]) == (True, [], 4)
    assert [(pair["from"], pair["to"]) for pair in smoke["pairs"]] == [("m0", "m1")]


@pytest.mark.parametrize(
    ("name", "share"), [("m0", "plan: export of /srv/cluster"), ("m1", "plan: share /srv/cluster")]
)
def test_each_keeps_its_promises(played, name, share):
    found = {finding["name"]: finding for finding in played[2][name]["findings"]}

    assert [f for f in found.values() if f["ok"] is not True] == []
    assert {share, "user ada", "sudo of ada", "wired address", "ssh"} <= set(found)


def test_the_worker_alone_started_twice(played):
    head, worker = (played[2][name]["timings"] for name in NODES)

    assert "first_start" in worker
    assert "first_start" not in head
