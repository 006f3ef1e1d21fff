"""Which card became which node, kept in the state."""

from __future__ import annotations

import json
from dataclasses import replace

import phony_facts
import pytest

from piimage.errors import StateError
from piimage.state import cards, state
from piimage.state.cards import CardRecord


@pytest.fixture
def cluster(tmp_path):
    return replace(phony_facts.cluster(), directory=tmp_path, source=tmp_path / "lab.yaml")


def card(node, **changes):
    facts = {"build": "b" * 12, "variant": "a" * 64, "written": "2026-11-28T23:59:12Z"}
    return CardRecord(**{"node": node, **facts, "size": 31_914_983_424, **changes})


def test_a_record_survives_export_and_import(cluster, tmp_path):
    made = state.init(cluster)
    assert made.cards() == ()
    made.record_card(card("node1", serial="201209", model="Generic SD/MMC"))
    state.export(cluster, tmp_path / "out.tar")
    made.path.rename(tmp_path / "away")

    assert (
        state.import_(cluster, tmp_path / "out.tar").cards()
        == made.__class__(tmp_path / "away").cards()
    )
    assert (made.path / "cards.json").stat().st_mode & 0o777 == 0o600


def test_a_node_has_the_card_that_was_written_last():
    records = cards.added([card("node1"), card("node2")], card("node1", build="c" * 12))
    assert {record.node: record.build for record in records} == {
        "node1": "c" * 12,
        "node2": "b" * 12,
    }


def test_a_card_that_is_known_by_its_cid_is_one_node_only():
    records = [card("node1", cid="0353"), card("node2", cid="0999"), card("node3")]
    now = cards.added(records, card("node0", cid="0353"))
    assert [record.node for record in now] == ["node2", "node3", "node0"]


def test_a_card_that_is_overwritten_is_forgotten_by_node_and_build(cluster):
    made = state.init(cluster)
    made.record_card(card("node1"))
    made.record_card(card("node2"))
    made.forget_card(("node1", "d" * 12))  # an old card of a node that has a newer one
    made.forget_card(("node2", "b" * 12))
    assert [record.node for record in made.cards()] == ["node1"]


def test_the_next_node_is_the_first_without_a_card(cluster):
    order = [node.name for node in cluster.nodes]
    records = []
    for name in order:
        following = cards.next_without_card(cluster, records)
        assert following is not None
        assert following.name == name
        records.append(card(name))
    assert cards.next_without_card(cluster, records) is None
    assert cards.next_without_card(cluster, records[1:]).name == order[0]


def test_the_file_is_left_to_the_owner_of_the_state(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.chown", lambda path, uid, gid: given.append((path.name, uid, gid)))
    monkeypatch.setattr("pathlib.Path.stat", _owned_by(1000, 1000, type(tmp_path).stat))

    cards.write(tmp_path / "cards.json", [card("node1")])

    assert given == [("cards.json", 1000, 1000)]


def _owned_by(uid, gid, real):
    class Status:
        def __init__(self, status):
            self.status, self.st_uid, self.st_gid = status, uid, gid

        def __getattr__(self, name):
            return getattr(self.status, name)

    return lambda self, **options: Status(real(self, **options))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "{}x",
        "[1]",
        '[{"node": "node1"}]',
        json.dumps([{"node": "n", "build": 1, "variant": "", "written": "", "size": 1}]),
        json.dumps([{"node": "n", "build": "", "variant": "", "written": "", "size": "1"}]),
        json.dumps([{"node": "n", "build": "", "variant": "", "written": "", "size": 1, "x": 1}]),
    ],
)
def test_a_damaged_file_is_said_to_be(tmp_path, text):
    path = tmp_path / "cards.json"
    path.write_text(text)
    with pytest.raises(StateError, match="is damaged"):
        cards.read(path)


def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "cards.json").mkdir()
    with pytest.raises(StateError, match="cannot be read: is a directory"):
        cards.read(tmp_path / "cards.json")
