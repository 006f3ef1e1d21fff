"""`piimage boot` before any machine is started: what is missing, and what to do about it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from piimage.cli.boot import _bytes

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]


def boot(*words):
    argv = [sys.executable, "-m", "piimage", "boot", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=REPOSITORY)


@pytest.fixture
def source(tmp_path):
    shutil.copy(REPOSITORY / "cluster.yaml", tmp_path)
    return tmp_path / "cluster.yaml"


def test_a_missing_image_says_how_to_make_it(source):
    done = boot(source, "--node", "node2")

    assert done.returncode == 1
    assert f"error: there is no image `{source.parent}/dist/pico5/node2.img`" in done.stderr
    assert "hint: `piimage build --node 2` makes it" in done.stderr


def test_an_image_without_its_state_cannot_be_entered(source, tmp_path):
    (tmp_path / "node2.img").write_bytes(b"")

    done = boot(source, "--node", "2", "--output", tmp_path)

    assert done.returncode == 1
    assert "error: there is no state directory" in done.stderr
    assert "piimage state import" in done.stderr
    assert not source.with_suffix(".state").exists(), "a rehearsal invents no keys"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--node", "9"], "has no node `9`"),
        ([], "--node"),
        (["--node", "1", "--machine", "pc"], "one of virt, raspi3b"),
        (["--node", "1", "--disk-size", "big"], "is not a size"),
    ],
)
def test_wrong_words_are_refused(source, words, said):
    done = boot(source, *words)

    assert done.returncode == 2
    assert said in done.stderr


def test_sizes():
    assert [_bytes(text) for text in ("8G", "4096M", "8GiB", "1000", "2t")] == [
        8 << 30, 4 << 30, 8 << 30, 1000, 2 << 40,
    ]  # fmt: skip
    with pytest.raises(typer.BadParameter):
        _bytes("8 apples")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--node", "1", "--access-point", "near"], "one of right, wrong-passphrase, absent"),
        (["--all", "--access-point", "right"], "is for one node"),
        (["--node", "1", "--node", "2", "--access-point", "right"], "is for one node"),
        (["--node", "1", "--machine", "raspi3b", "--access-point", "right"], "has no radio"),
        (["--all", "--unplugged"], "`--unplugged` is for one node"),
        (["--node", "1", "--machine", "raspi3b", "--unplugged"], "has no network"),
    ],
)
def test_an_access_point_or_a_cable_for_nobody_is_refused(source, words, said):
    done = boot(source, *words)

    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_an_access_point_for_a_node_without_wifi_is_refused(source):
    text = source.read_text()
    assert "worker: {} " in text
    source.write_text(text.replace("worker: {} ", "worker: {wifi: false} "))

    done = boot(source, "--node", "1", "--access-point", "right")

    assert done.returncode == 2
    assert "`node1` has no Wi-Fi" in done.stderr
