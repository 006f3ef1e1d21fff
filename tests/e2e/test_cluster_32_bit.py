"""A cluster whose programs have 32 bits: Raspberry Pi OS bookworm for armhf, on a real userland of Debian 12.

MPI is compiled and computes there, with that release's Open MPI, and cloud-init is of before it had network v2 for
NetworkManager.
"""

from __future__ import annotations

import json

import pytest
import vendors

pytestmark = pytest.mark.matrix
CLUSTER = """\
version: 1
name: narrow
base: narrow
users: [{name: ada, uid: 1200, rename_from: auto, sudo: nopasswd, password: locked}]
network:
  wired: {subnet: 10.77.0.0/24, first: 10.77.0.40}
shares: [{path: /srv/cluster, server: head}]
mpi: {flavour: openmpi, slots: 2}
nodes: {count: 2, name: "s{n}"}
"""
NODES = ["s0", "s1"]


@pytest.fixture(scope="module")
def played(tmp_path_factory, default_base, piimage):
    """Exit status and report of one rehearsal, and the report of each node."""
    source = tmp_path_factory.mktemp("narrow") / "cluster.yaml"
    source.write_text(CLUSTER)
    with vendors.imported(default_base, {"narrow": "raspios-bookworm-armhf"}, piimage) as there:
        done = piimage("build", source, "--all", cache=there.cache)
        assert done.returncode == 0, done.stderr
        words = ("boot", source, "--all", "--smoke", "--json")
        done = piimage(*words, cache=there.cache, timeout=2400)
    place = source.parent / "dist/narrow/rehearsal"
    nodes = {name: json.loads((place / name / "report.json").read_bytes()) for name in NODES}
    return done.returncode, json.loads(done.stdout), nodes


def test_mpi_computes_with_32_bits(played):
    status, report, _ = played

    assert (status, report["problems"], report["ok"]) == (0, [], True)
    smoke = report["smoke"]
    assert (smoke["ok"], smoke["failures"], smoke["mpi"]["ranks"]) == (True, [], 4)
    assert smoke["mpi"]["version"].startswith("4.1.")
    told = [
        check["found"]
        for row in smoke["nodes"]
        for check in row["checks"]
        if check["name"] == "architecture"
    ]
    assert told == ["arm-linux-gnueabihf"] * 2


@pytest.mark.parametrize(
    ("name", "share"), [("s0", "plan: export of /srv/cluster"), ("s1", "plan: share /srv/cluster")]
)
def test_each_keeps_its_promises(played, name, share):
    found = {finding["name"]: finding for finding in played[2][name]["findings"]}

    assert [f for f in found.values() if f["ok"] is not True] == []
    assert {share, "user ada", "sudo of ada", "wired address", "ssh"} <= set(found)
