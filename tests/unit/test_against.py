"""`piimage plan --against`: what a change of cluster.yaml makes anew, which cards become stale, and why."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from piimage.bake.session import Packages
from piimage.bases.importing import import_base
from piimage.bases.store import Store
from piimage.cli.main import app
from piimage.errors import PiimageError
from piimage.preview import kept
from piimage.preview.preview import preview
from piimage.preview.record import record
from piimage.progress import Quiet
from piimage.resolve import load
from piimage.state import state
from piimage.state.cards import CardRecord

#: Hashes, so that no test has to make one.
HASH = "$6$saltsaltsalt$" + "a" * 86
PASSPHRASE, OTHER = (
    "a good passphrase",
    {"PSK": "another passphrase", "ADA": "$6$saltsaltsalt$" + "b" * 86},
)
YAML = """\
version: 1
name: abacus
base: phony
users:
  - {name: ada, uid: 1000, rename_from: auto, password: env:ADA}
network:
  wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}
  wifi: {ssid: lab, psk: env:PSK, country: IT}
roles: {worker: {wifi: false}}
nodes: {count: 4, name: "node{n}", head: 0}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory, small_master):
    root = tmp_path_factory.mktemp("cache")
    import_base(small_master, store=Store(root), progress=Quiet(), name="phony")
    return root


@pytest.fixture
def home(tmp_path, monkeypatch, shared):
    (tmp_path / "cluster.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIIMAGE_CACHE", str(shared))
    monkeypatch.setenv("ADA", HASH)
    monkeypatch.setenv("PSK", PASSPHRASE)
    return tmp_path


def build(home, *names):
    """What a build leaves for later plans: the state, and the plan of what it has made."""
    env = {"ADA": HASH, "PSK": PASSPHRASE}
    cluster = load(home / "cluster.yaml", env=env).cluster
    nodes = [n for n in cluster.nodes if not names or n.name in names]
    secrets = state.open_state(cluster).secrets(cluster, env)
    packages = Packages(cluster, Store(), Quiet())
    made = preview(cluster, nodes, packages, secrets)
    builds = {found.node.name: found.build for found in made.nodes}
    (home / "dist").mkdir(exist_ok=True)
    kept.keep(home / "dist", cluster, builds, lambda: record(made, diffs=False))
    return builds


def change(home, old, new):
    text = (home / "cluster.yaml").read_text()
    assert old in text
    (home / "cluster.yaml").write_text(text.replace(old, new))


def run(*words):
    return CliRunner().invoke(app, ["plan", "--against", *map(str, words)])


def against(last="dist", *words):
    result = run(last, "--json", *words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    variants = {v["role"]: v["why"] for v in found["variants"]}
    return variants, {n["name"]: n["why"] for n in found["nodes"]}, found


def test_nothing_changed(home):
    build(home)

    variants, nodes, found = against()

    assert variants == {"head": [], "worker": []}
    assert nodes == {f"node{n}": [] for n in range(4)}
    assert found["gone"] == found["secrets_unknown"] == []
    assert run("dist").stdout.splitlines() == [
        "since `dist`:",
        "variant `head` stays as it is",
        "variant `worker` stays as it is",
        "cards that may stay: node0, node1, node2, node3",
    ]


def test_a_change_for_one_role_makes_its_variant_anew_and_its_cards_stale(home):
    build(home)
    change(home, "worker: {wifi: false}", "worker: {wifi: false, cmdline: [maxcpus=3]}")

    variants, nodes, _ = against()

    assert variants == {"head": [], "worker": ["/boot/firmware/cmdline.txt (firmware) changes too"]}
    assert nodes["node0"] == []
    assert {nodes[f"node{n}"][0] for n in (1, 2, 3)} == {"its variant is made anew"}
    assert run("dist").stdout.splitlines()[1:] == [
        "variant `head` stays as it is",
        "variant `worker` is made anew",
        "    /boot/firmware/cmdline.txt (firmware) changes too",
        "card that may stay: node0",
        "stale cards: node1, node2, node3",
        "    its variant is made anew",
    ]


def test_one_more_node_changes_the_roster_of_all_and_no_variant(home):
    build(home)
    change(home, "count: 4", "count: 5")

    variants, nodes, found = against()

    assert variants == {"head": [], "worker": []}
    for name in ("node0", "node3"):
        assert "/etc/hosts (identity)" in nodes[name]
        assert "/etc/ssh/ssh_known_hosts (ssh)" in nodes[name]
    assert [n["name"] for n in found["nodes"] if n["new"]] == ["node4"]
    assert "new: node4" in run("dist").stdout


def test_one_node_less(home):
    build(home)
    change(home, "count: 4", "count: 3")

    _, nodes, found = against()

    assert found["gone"] == ["node3"]
    assert all(nodes.values())
    assert "no more in the cluster: node3" in run("dist").stdout


def test_a_node_that_was_not_asked_about_is_not_gone(home):
    build(home)

    assert against("dist", "--node", "1")[2]["gone"] == []


def test_one_node_gets_another_address(home):
    change(
        home, 'nodes: {count: 4, name: "node{n}", head: 0}', "nodes:\n- {role: head}\n- {}\n- {}"
    )
    build(home)
    change(home, "- {}\n- {}", "- {}\n- {address: 10.9.1.77}")

    variants, nodes, _ = against()

    assert variants == {"head": [], "worker": []}
    assert "/var/lib/cloud/seed/nocloud/network-config (cloudinit)" in nodes["node2"]
    assert "/var/lib/cloud/seed/nocloud/network-config (cloudinit)" not in nodes["node1"]
    assert "/etc/hosts (identity)" in nodes["node1"]


@pytest.mark.parametrize(
    ("variable", "stale"),
    [("PSK", ["node0"]), ("ADA", ["node0", "node1", "node2", "node3"])],
)
def test_another_secret_is_seen_without_being_written(home, monkeypatch, variable, stale):
    build(home)
    monkeypatch.setenv(variable, OTHER[variable])

    _, nodes, _ = against()

    assert [name for name, why in nodes.items() if why] == stale
    assert nodes["node0"] == ["a key, a password or a passphrase is another"]
    for text in (PASSPHRASE, "$6$", "PRIVATE KEY"):
        assert text not in (home / "dist" / "plan.json").read_text()


def test_without_the_state_secrets_are_said_not_to_be_compared(home):
    build(home)
    (home / "cluster.state").rename(home / "elsewhere")

    _, nodes, found = against()

    assert not any(nodes.values())
    assert found["secrets_unknown"] == ["node0", "node1", "node2", "node3"]
    said = run("dist").stdout.splitlines()[-1]
    assert said.startswith("keys, passwords and passphrases were not compared for node0, node1")
    assert said.endswith("there is no state `" + str(home / "cluster.state") + "` yet")


def test_the_state_stays_as_it_is(home, monkeypatch):
    build(home)
    monkeypatch.setenv("ADA", OTHER["ADA"])
    change(home, "count: 4", "count: 6")
    place = home / "cluster.state"
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in place.rglob("*")}

    said = run("dist").stdout

    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in place.rglob("*")} == before
    assert "new: node4, node5" in said
    assert "scratch" not in said


def test_another_cluster_yaml(home):
    state.init(load(home / "cluster.yaml").cluster)
    (home / "old.yaml").write_text(YAML)
    change(home, "base: phony", "base: phony\ntimezone: Europe/Rome")

    variants, nodes, _ = against("old.yaml")

    assert variants["head"] == [
        "/etc/localtime (localisation) changes too",
        "/etc/timezone (localisation) changes too",
    ]
    assert all(nodes.values())


def test_a_plan_printed_as_json(home):
    (home / "last.json").write_text(CliRunner().invoke(app, ["plan", "--json"]).stdout)
    change(home, "uid: 1000", "uid: 1000, gecos: Ada")

    variants, _, found = against("last.json")

    assert "/etc/passwd (users)" in variants["worker"]
    assert found["secrets_unknown"] == []


def test_builds_one_after_the_other_are_all_remembered(home):
    build(home, "node0")
    build(home, "node2")
    change(home, "count: 4", "count: 5")
    build(home, "node2")

    kept_record = kept.read(home / "dist")
    _, nodes, _ = against()

    assert [n["name"] for n in kept_record["nodes"]] == ["node0", "node2"]
    assert {v["role"]: v["nodes"] for v in kept_record["variants"]} == {
        "head": ["node0"],
        "worker": ["node2"],
    }
    assert nodes["node2"] == []
    assert "/etc/hosts (identity)" in nodes["node0"]
    assert nodes["node1"] == ["there was none"]


def test_the_same_build_again_writes_nothing(home):
    build(home)
    path = home / "dist" / "plan.json"
    before = path.stat().st_mtime_ns

    build(home)

    assert path.stat().st_mtime_ns == before
    assert path.stat().st_mode & 0o777 == 0o644


def test_packages_that_come_and_go_are_named(home):
    change(home, "base: phony", "base: phony\npackages: [htop]")
    (home / "last.json").write_text(CliRunner().invoke(app, ["plan", "--json"]).stdout)
    change(home, "packages: [htop]", "packages: [stress-ng]")

    variants, nodes, _ = against("last.json")

    assert variants["worker"] == [
        "package wanted: - htop",
        "package wanted: + stress-ng",
        "its packages are not settled yet",
    ]
    assert nodes["node1"] == ["its variant is made anew"]


def test_cards_that_were_written_are_known_by_what_is_on_them(home):
    builds = build(home)
    made = state.State(home / "cluster.state")
    for node, on_card in (("node1", builds["node1"]), ("node2", "0" * 12)):
        made.record_card(
            CardRecord(
                node=node, build=on_card, variant="f" * 64, written="2026-01-31T12:00:00Z", size=1
            )
        )

    assert against()[2]["cards"] == {"node1": True, "node2": False}
    assert run("dist").stdout.splitlines()[-2:] == [
        "written cards that hold this already: node1",
        "written cards that hold another build: node2",
    ]
    change(home, "count: 4", "count: 5")
    assert against()[2]["cards"] == {"node1": None, "node2": None}, "the new node has no key yet"


@pytest.mark.parametrize("content", [None, "", "[]", '{"version": 99}', "version: 1"])
def test_what_is_no_plan(home, content):
    if content is not None:
        (home / "last.json").write_text(content)

    error = run("last.json").exception

    assert isinstance(error, PiimageError)
    assert error.message == "`last.json` holds no plan"
    assert "the directory of a build" in error.hint


def test_a_directory_without_a_build(home):
    assert run(".").exception.message == "`plan.json` holds no plan"
