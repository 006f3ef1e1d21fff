"""The smoke test's MPI program under a real MPI: what it finds, and what it says when something is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from piimage.guest.smoke import program
from piimage.guest.smoke.launch import SOURCES, lines
from piimage.guest.smoke.reach import Said
from piimage.guest.smoke.roster import Node

HERE = Path(__file__).parent
GUEST = HERE.parents[1] / "piimage/guest/smoke"
STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
NODES = [Node(f"node{n}", f"10.1.10.24{n}", n, "worker", 2) for n in range(3)]

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(shutil.which("mpicc") is None, reason="no mpicc: libopenmpi-dev"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The program as nodes compile it, and one in which six ranks are three nodes."""
    directory = tmp_path_factory.mktemp("mpi")
    sources = [GUEST / name for name in SOURCES]
    plain, played = directory / "plain", directory / "played"
    subprocess.run(["mpicc", *STRICT, "-o", plain, *sources], check=True)
    subprocess.run(["mpicc", "-o", played, *sources, HERE / "smoke_names.c"], check=True)
    return plain, played


def run(binary, ranks, limit=10.0, **environment):
    """One run on this machine; loopback alone, and no binding, since there are more ranks than cores."""
    options = ["--oversubscribe", "--bind-to", "none", "--mca", "btl", "self,vader"]
    env = {
        **os.environ, **environment, "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["mpirun", *options, "-n", str(ranks), binary, str(limit)],
        capture_output=True, text=True, timeout=120, check=False, env=env,
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


def failures(said):
    return [f.sentence() for f in program.judge(said, NODES) if f.ok is False]


def test_four_ranks_of_one_machine(built):
    said = run(built[0], 4)

    told = lines(said.out)
    checks = {line["check"]: (line["found"], line["wrong"]) for line in told if "check" in line}
    assert said.status == 0, said.err
    assert checks["allreduce"] == (10, [])
    assert checks["all-to-all"] == (4, [])
    assert checks["ring"] == (4, [])
    assert checks["broadcast"][1] == []
    assert [line["phase"] for line in told if "phase" in line] == [
        "names", "reach", "allreduce", "broadcast", "all-to-all", "ring", "pairs", "end",
    ]  # fmt: skip


def test_one_rank_alone(built):
    said = run(built[0], 1)

    assert said.status == 0
    assert lines(said.out)[-1] == {"phase": "end"}


def test_three_nodes_meet_in_pairs(built):
    said = run(built[1], 6)

    assert failures(said) == []
    pairs = program.measured(said, NODES)
    assert [(pair["from"], pair["to"]) for pair in pairs] == [
        ("node0", "node1"), ("node0", "node2"), ("node1", "node2"),
    ]  # fmt: skip
    assert all(pair["latency_us"] > 0 and pair["bandwidth_mib_s"] > 0 for pair in pairs)


def test_every_pair_of_many_nodes_is_met_once(built):
    """Seventeen nodes: more than are measured one at a time, and an odd number of them."""
    said = run(built[1], 34, limit=60)

    pairs = [(pair["from"], pair["to"]) for pair in program.measured(said, NODES)]
    assert said.status == 0, said.err
    assert len(pairs) == len(set(pairs)) == 17 * 16 / 2


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("WRONG_RANK", "allreduce gave a wrong result on node1"),
        ("DAMAGED_RANK", "broadcast gave a wrong result on node1"),
    ],
)
def test_a_rank_that_calculates_wrongly_is_named(built, variable, words):
    assert failures(run(built[1], 6, **{variable: "3"})) == [words]


def test_two_nodes_that_do_not_hear_each_other_are_named(built):
    said = run(built[1], 6, limit=0.5, DEAF_ONE="2", DEAF_OTHER="4")

    first, second = failures(said)
    assert first == "these nodes do not hear each other over MPI: node1 and node2"
    assert second.startswith("the MPI program on node0, node1, node2 ended in `reach`: ")


def test_a_rank_without_a_word_is_named(built):
    said = run(built[1], 6, limit=0.5, MUTE_RANK="5")

    first, second = failures(said)
    assert "node2 1, expected node0 2, node1 2, node2 2; no word from rank 5" in first
    assert "ended in `names`" in second


def test_fewer_ranks_than_slots(built):
    assert failures(run(built[1], 4))[:2] == [
        "MPI started 4 ranks, expected 6",
        "ranks by processor name: node0 2, node1 2, expected node0 2, node1 2, node2 2",
    ]
