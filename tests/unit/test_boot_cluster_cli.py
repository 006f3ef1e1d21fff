"""`piimage boot` of several nodes, as far as the command line decides: who plays, in which order, what is printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from phony_company import CLUSTER, smoke_report
from test_boot_page import rehearsal

from piimage.boot import memory
from piimage.boot.stage import Options
from piimage.cli import boot_cluster
from piimage.cli.boot_cluster import Wanted, lines, settle
from piimage.emulator import Accel
from piimage.errors import PiimageError, RehearsalError

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]
PLENTY = 60_000
TCG = Accel("tcg", "cortex-a72")


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: PLENTY)
    monkeypatch.setattr(boot_cluster.os, "cpu_count", lambda: 2)


def settled(nodes=CLUSTER.nodes, **more):
    wanted = Wanted(
        nodes=nodes,
        **{"smoke": False, "order": None, "kill": None, "timeout": None, "memory": None, **more},
    )
    return settle(CLUSTER, wanted, Options(timeout=more.get("timeout") or 900), TCG)


def boot(*words):
    argv = [sys.executable, "-m", "piimage", "boot", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=REPOSITORY)


@pytest.fixture
def source(tmp_path):
    shutil.copy(REPOSITORY / "cluster.yaml", tmp_path)
    return tmp_path / "cluster.yaml"


def test_many_nodes_on_few_processors_get_more_time():
    options, scenario = settled()

    assert (options.timeout, options.crowd, options.memory.node) == (2250, 2.5, 1024)
    assert scenario.order == ("node0", "node1", "node2", "node3", "node4")
    assert not scenario.one_by_one
    assert settled(timeout=60.0)[0].timeout == 60
    assert settled(CLUSTER.nodes[:1])[0].timeout == 900


def test_an_order_starts_one_after_another_and_the_rest_follows():
    options, scenario = settled(order="node3, 0")

    assert scenario.order == ("node3", "node0", "node1", "node2", "node4")
    assert scenario.one_by_one
    assert options.timeout == 900, "each has the processors to itself"


def test_a_random_order_is_one_of_all():
    orders = {settled(order="random")[1].order for _ in range(60)}

    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset(n.name for n in CLUSTER.nodes)}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"order": "node1,node9"}, "`--order` names `node9`; these nodes play: node0, node1"),
        ({"order": "node4"}, "`--order` names `node4`"),
        ({"kill": "4"}, "`--kill` names `4`"),
        ({"smoke": True}, "`--smoke` asks every node"),
    ],
)
def test_what_does_not_play_cannot_be_named(more, words):
    with pytest.raises(typer.BadParameter, match=words):
        settled(CLUSTER.nodes[:2], **more)


def test_a_node_is_killed_by_name_or_number():
    assert settled(kill="0")[1].kill == settled(kill="node0")[1].kill == "node0"


def test_too_little_memory_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 3000)

    with pytest.raises(PiimageError, match="5 nodes with 512 MiB each need"):
        settled()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--all", "--node", "1"], "or take all with"),
        (["--all", "--machine", "raspi3b"], "has no network for several nodes"),
        (["--node", "1", "--smoke"], "are for several nodes"),
        (["--node", "1", "--kill", "1"], "are for several nodes"),
        (["--node", "1", "--node", "2", "--smoke"], "asks every node"),
        (["--all", "--order", "node1,node7"], "names `node7`"),
    ],
)
def test_wrong_words_are_refused(source, words, said):
    done = boot(source, *words)

    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_what_was_not_built_says_how_to_build_it(source):
    done = boot(source, "--all")

    assert done.returncode == 1
    assert "error: there is no image" in done.stderr
    assert "`piimage build --all` stamps for all nodes" in done.stderr


def test_the_table_is_for_people(tmp_path):
    (tmp_path / "smoke.html").touch()
    report = rehearsal(nodes=CLUSTER.nodes[:2])

    assert lines(report, tmp_path) == [
        "node   login  facts  off  checks    smoke",
        "node0  226 s  60 s   9 s  57 of 57  ok",
        "node1  227 s  60 s   9 s  57 of 57  ok",
        "smoke test: passed (openmpi 5.0.7, 8 ranks)",
        "",
        "us above, MiB/s below  node0  node1",
        "node0                  -      174",
        "node1                  11.5   -",
        "",
        f"logins 331 s, smoke 71 s, all 512 s  {tmp_path}/cluster.json",
        f"page: {tmp_path}/smoke.html",
    ]


def test_the_table_of_a_failure_and_of_a_smoke_test_that_measured_nothing(tmp_path):
    report = rehearsal(ok=False)
    report.nodes["node2"].timings = {}
    report.smoke |= {"mpi": None, "pairs": []}

    found = lines(report, tmp_path)

    assert found[2:4] == [
        "node1  227 s  60 s   9 s  57 of 58         failed",
        "node2  -      -      -    did not come up  failed",
    ]
    assert found[6] == "smoke test: failed"
    assert not any(line.startswith(("us", "page")) for line in found)


def test_a_wide_matrix_is_left_to_the_page(tmp_path):
    many = [replace(CLUSTER.nodes[1], name=f"n{n}") for n in range(11)]
    report = rehearsal(nodes=CLUSTER.nodes[:2])
    report.smoke = smoke_report(many)

    assert not any("MiB/s" in line for line in lines(report, tmp_path))


def test_every_problem_is_in_the_error_and_one_console(tmp_path):
    report = rehearsal(ok=False)
    report.nodes["node3"].error = "no login prompt\n    some line"

    with pytest.raises(RehearsalError) as caught:
        report.check(tmp_path)

    assert caught.value.message.splitlines() == [
        "the rehearsal of `pico5` found 4 problems",
        "    node2: the kernel panicked",
        "    <b>last</b> words",
        "    node3: no login prompt",
        "    node1: wired <address>: expected a & b; found none",
        "    smoke test: node1: uid of federico is 1002, expected 1000 <&>",
    ]
    assert str(tmp_path) in caught.value.hint
    assert caught.value.exit_code == 6


def test_the_whole_report_is_plain_json():
    text = json.dumps(rehearsal(ok=False).to_json())

    assert json.loads(text)["killed"] == "node0"
