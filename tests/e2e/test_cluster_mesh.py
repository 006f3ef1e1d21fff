"""Two nodes that do otherwise than the sample wherever they may: MPICH, trust of all to all, a worker that serves the
share, a way out over the wire, names of their own; and one of them built anew by itself.

The program of the smoke test is linked on the head, a client of the share, and runs on its server at once. The head
is at its prompt before the server starts. One boot, with everything in it.
"""

from __future__ import annotations

import hashlib
import json

import pytest

CLUSTER = """\
version: 1
name: burrow
users:
  - {name: grace, uid: 1407, sudo: nopasswd}
  - {name: linus, uid: 2211}
ssh: {trust: mesh}
network:
  wired: {subnet: 172.29.44.0/26, first: 172.29.44.11, gateway: 172.29.44.1}
shares: [{path: /data/common, server: clover}]
mpi: {flavour: mpich, slots: 2}
nodes:
  - {name: alp, role: head}
  - {name: clover}
"""
NODES = ["alp", "clover"]
#: Seconds by which a login may be later than usual; emulated, everything takes about three times as long.
LATER = 30 * 3


def digests(directory):
    """sha256 of every file below, by name; the manifest counts by what it says of the head."""
    found = {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    manifest = json.loads((directory / "manifest.json").read_bytes())
    return found | {"manifest": manifest["nodes"]["alp"]}


@pytest.fixture(scope="module")
def source(tmp_path_factory, default_base, piimage):
    """The cluster's file, with variants and stamps beside it."""
    path = tmp_path_factory.mktemp("burrow") / "cluster.yaml"
    path.write_text(CLUSTER)
    assert piimage("build", path, "--all").returncode == 0
    return path


@pytest.fixture(scope="module")
def rebuilt(source, piimage):
    """The digests before and after an image of clover alone was made; it starts from that one then."""
    directory = source.parent / "dist" / "burrow"
    before = digests(directory)
    assert piimage("build", source, "--node", "clover", "--require-state").returncode == 0
    return before, digests(directory)


@pytest.fixture(scope="module")
def played(source, rebuilt, piimage):
    """Exit status and report of one rehearsal, in which alp is at its prompt before clover starts."""
    words = ["boot", source, "--all", "--order", "alp", "--smoke", "--json"]
    done = piimage(*words, timeout=2400)
    return done.returncode, json.loads(done.stdout)


def test_a_node_built_anew_leaves_the_others_alone(rebuilt):
    before, after = rebuilt

    assert {name: after.get(name) for name in before} == before
    assert set(after) - set(before) == {"clover.img", "clover.bmap", "clover.sha256"}


def test_it_is_the_same_node_again_and_the_smoke_test_passes(played):
    status, report = played

    assert (status, report["problems"], report["ok"]) == (0, [], True)
    smoke = report["smoke"]
    assert (smoke["ok"], smoke["failures"], smoke["mpi"]["ranks"]) == (True, [], 4)
    assert smoke["mpi"]["flavour"] == "mpich"
    assert [(pair["from"], pair["to"]) for pair in smoke["pairs"]] == [("alp", "clover")]


def test_a_node_does_not_wait_for_the_server_of_its_share(played):
    _, report = played

    assert (report["order"], report["one_by_one"]) == (NODES, True)
    took = {node["name"]: node["timings"]["login"] for node in report["nodes"]}
    assert took["alp"] < took["clover"] + LATER


@pytest.mark.parametrize("name", NODES)
def test_all_reach_all_without_a_prompt_or_a_warning(played, source, name):
    place = source.parent / "dist" / "burrow" / "rehearsal" / name / "report.json"
    report = json.loads(place.read_bytes())
    assert report["artifact"].endswith("/clover.img") is (name == "clover")

    found = {finding["name"]: finding for finding in report["findings"]}
    assert all(found[f"plan: ssh to {other}"]["ok"] for other in NODES)
    assert found["plan: default route on the wire"]["ok"]
    assert found["plan: name server 172.29.44.1"]["ok"]
    answers = {answer["name"]: answer for answer in report["facts"]["checks"]}
    for other in NODES:
        assert answers[f"ssh to {other}"]["stdout"].strip() == other
        assert answers[f"ssh to {other}"]["stderr"] == ""
