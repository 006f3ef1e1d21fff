"""`piimage ssh`: into a rehearsal that runs, and nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from piimage.boot import guest, place
from piimage.resolve import load

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path):
    shutil.copy(REPOSITORY / "cluster.yaml", tmp_path / "my cluster.yaml")
    return tmp_path / "my cluster.yaml"


@pytest.fixture
def home(source):
    cluster = load(source, env={}).cluster
    return place.directory(source.parent / "dist" / cluster.name, cluster.nodes[1])


@pytest.fixture
def ssh(source, tmp_path):
    """Run `piimage ssh`; the ssh that it becomes prints its words, one a line."""
    tool = tmp_path / "bin" / "ssh"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 7\n")
    tool.chmod(0o755)

    def run(*words):
        argv = [sys.executable, "-m", "piimage", "ssh", "-c", source, *words]
        env = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=REPOSITORY, env=env
        )

    return run


def opened(home):
    return guest.write_access(
        home, name="node1", user="federico", port=1, identity=home, ca_public="a b"
    )


def test_it_becomes_ssh(ssh, home):
    with place.alone(home):
        access = opened(home)
        done = ssh("node1", "ls", "-l", "--all")

    assert done.stdout.splitlines() == ["-F", str(access.config), "node1", "ls", "-l", "--all"]
    assert done.returncode == 7, "what the command said"


def test_a_number_will_do(ssh, home):
    with place.alone(home):
        opened(home)
        assert ssh("1").stdout.splitlines()[-1] == "node1"


def test_nothing_runs(ssh, home):
    done = ssh("node1")

    assert done.returncode == 1
    assert "error: no rehearsal of `node1` is running in" in done.stderr
    assert "hint: `piimage boot --all --keep`" in done.stderr


def test_what_a_killed_rehearsal_left_is_not_entered(ssh, home):
    with place.alone(home):
        opened(home)

    assert "no rehearsal of `node1` is running" in ssh("node1").stderr


def test_a_rehearsal_that_begins_is_not_entered_by_the_old_way(ssh, home):
    with place.alone(home):
        opened(home)
    with place.alone(home):
        assert "no rehearsal of `node1` is running" in ssh("node1").stderr


def test_another_node_runs(ssh, home):
    with place.alone(home):
        opened(home)
        assert "no rehearsal of `node2` is running" in ssh("node2").stderr
        assert ssh("node9").returncode == 2


def test_ports_are_all_different():
    assert len(set(place.free_ports(50))) == 50
