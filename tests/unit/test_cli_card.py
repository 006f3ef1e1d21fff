"""`piimage card`: whose card is this, and is it of the newest build."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace

import pytest
from phony import BOOT_START, make_phony

from piimage.cli.loading import load_all
from piimage.cli.main import main
from piimage.disk.sparse import copy_sparse
from piimage.flash import journal
from piimage.flash.card import judge, read_label
from piimage.label import CardLabel, decode
from piimage.progress import Quiet
from piimage.state.cards import CardRecord
from piimage.state.state import init

LABEL = CardLabel(cluster="abacus", node="node3", number=3, build="b" * 12, variant="a" * 64)
TEXT = json.dumps(
    {"cluster": "abacus", "node": "node3", "number": 3, "build": "b" * 12, "variant": "a" * 64}
).encode()
YAML = """\
version: 1
name: abacus
base: debian-13
users:
  - {name: ada, uid: 1000, password: "env:NOT_THERE"}
network:
  wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}
nodes: {count: 5, name: "node{n}", head: 0}
"""


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    path = tmp_path_factory.mktemp("card") / "node3.img"
    return make_phony(path, root_size=8 << 20, boot={"piimage.json": TEXT})


@pytest.fixture
def card(master, tmp_path):
    path = tmp_path / "card.img"
    copy_sparse(master, path)
    return path


@pytest.fixture
def piimage(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["piimage", *map(str, argv)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        assert "unexpected" not in said.err
        return caught.value.code, said.out, said.err

    return run


def manifest(tmp_path, **builds):
    path = tmp_path / "dist" / "abacus" / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1, "cluster": "abacus", "nodes": {"node3": builds}}))


def fact(out, name):
    (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
    return line[len(name) :].strip()


def test_a_card_without_a_cluster_to_compare_with(piimage, card):
    code, out, _ = piimage("card", card)
    assert code == 0
    assert out.splitlines() == [
        f"card      `{card}`: 48.0 MiB",
        "cluster   abacus",
        "node      node3 (number 3)",
        f"build     {'b' * 12}",
        "current   unknown: there is no cluster.yaml to compare it with",
    ]


@pytest.mark.parametrize(
    ("builds", "words"),
    [
        ({"stamp": "b" * 12}, "yes: it is of the newest build"),
        ({"img.xz": "b" * 12, "stamp": "c" * 12}, "yes: it is of the newest build"),
        ({"stamp": "c" * 12}, "no: the newest build is cccccccccccc"),
        ({"number": 3}, "unknown: there is no build of `node3` to compare it with"),
    ],
)
def test_a_card_beside_its_cluster(piimage, card, tmp_path, builds, words):
    (tmp_path / "cluster.yaml").write_text(YAML)
    manifest(tmp_path, **builds)
    code, out, _ = piimage("card", card)
    assert (code, fact(out, "current")) == (0, words)


def test_artifacts_elsewhere(piimage, card, tmp_path):
    (tmp_path / "lab.yaml").write_text(YAML)
    manifest(tmp_path, stamp="b" * 12)
    out = piimage("card", card, "-c", "lab.yaml", "-o", "dist/abacus")[1]
    assert fact(out, "current") == "yes: it is of the newest build"


def test_a_card_of_another_cluster(piimage, card, tmp_path):
    (tmp_path / "cluster.yaml").write_text(YAML.replace("abacus", "pico5"))
    out = piimage("card", card)[1]
    assert fact(out, "current") == "unknown: it is of another cluster than `pico5`"


def test_what_the_state_remembers_is_told(piimage, card, tmp_path):
    (tmp_path / "cluster.yaml").write_text(YAML)
    cluster = load_all(tmp_path / "cluster.yaml", Quiet(), check_secrets=False).cluster
    record = CardRecord(
        node="node3", build="c" * 12, variant="a" * 64, written="2026-11-28T23:59:12Z", size=5
    )
    made = init(cluster)
    made.record_card(replace(record, node="node1"))
    assert "recorded" not in piimage("card", card)[1]
    made.record_card(record)
    out = piimage("card", card)[1]
    assert fact(out, "recorded") == (
        "node3 was written 2026-11-28T23:59:12Z from build cccccccccccc"
    )


def test_json(piimage, card, tmp_path):
    (tmp_path / "cluster.yaml").write_text(YAML)
    manifest(tmp_path, stamp="c" * 12)
    code, out, _ = piimage("card", card, "--json")
    document = json.loads(out)
    assert code == 0
    assert document.pop("device")["kind"] == "file"
    assert document == {
        **json.loads(TEXT),
        "current": False,
        "why": "the newest build is cccccccccccc",
        "unfinished": None,
        "recorded": None,
    }


def test_a_half_written_card(piimage, card):
    block = journal.encode(
        journal.Journal(fingerprint="f", title="node3", phase="body", done=1 << 20)
    )
    with card.open("r+b") as file:
        file.write(bytes(1 << 20))
        file.seek(journal.OFFSET)
        file.write(block)

    code, out, _ = piimage("card", card)
    assert (code, out) == (
        0,
        "half-written as node3: `piimage flash` finishes or replaces it\n",
    )
    document = json.loads(piimage("card", card, "--json")[1])
    assert (document["node"], document["unfinished"]["done"]) == (None, 1 << 20)


def test_a_card_of_somebody_else(piimage, small_master):
    code, out, err = piimage("card", small_master)
    assert (code, out) == (1, "")
    assert err == (
        f"error: `{small_master}` holds no node: it has no `piimage.json` on a FAT partition\n"
    )


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("absent.img", 1, "cannot read `absent.img`: no such file or directory"),
        ("/dev/sd-none", 5, "there is no `/dev/sd-none`"),
        (".", 5, "`.` is a directory"),
    ],
)
def test_what_is_no_card(piimage, name, code, words):
    found, out, err = piimage("card", name)
    assert (found, out) == (code, "")
    assert err.splitlines()[0] == f"error: {words}"


def test_one_that_may_not_be_read(piimage, card, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    code, _, err = piimage("card", card)
    assert code == 3
    assert err.splitlines()[1] == 'hint: run piimage with sudo: `sudo "$(which piimage)" ...`'


def test_a_card_that_breaks_while_it_is_read(piimage, card, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    code, _, err = piimage("card", card)
    assert code == 1
    assert err == f"error: cannot read `{card}`: input/output error\n"


def test_a_damaged_fat_is_no_label(card):
    with card.open("r+b") as file:
        file.seek(BOOT_START + 44)
        file.write(b"\xff\xff\xff\x0f")  # the root directory's cluster
    assert read_label(card) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        TEXT.replace(b"3,", b'"3",'),
        TEXT.replace(b"abacus", b""),
        TEXT.replace(b"abacus", b"\\u001b[31m"),
        TEXT.replace(b"abacus", b"a" * 200),
        TEXT.replace(b'"abacus"', b"1"),
    ],
)
def test_what_is_no_label(text):
    assert decode(text) is None


def test_a_label_may_say_more_than_we_know():
    assert decode(TEXT.replace(b"{", b'{"more": 1, ', 1)) == LABEL


def test_a_manifest_of_another_shape_compares_with_nothing():
    assert judge(LABEL, "abacus", {}).current is None
