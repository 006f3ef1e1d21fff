"""`piimage plan`: what it says, and that it says so without doing anything."""

from __future__ import annotations

import json
from collections import Counter

import phony_facts as phony
import pytest
from typer.testing import CliRunner

from piimage.bake import lock
from piimage.bake.session import Packages
from piimage.bases.importing import import_base
from piimage.bases.store import Store
from piimage.cli.main import app
from piimage.components import slots
from piimage.components.stand_ins import stand_ins
from piimage.errors import ConfigError, PiimageError, UnsupportedError
from piimage.plan import plan
from piimage.progress import Quiet
from piimage.resolve import load
from piimage.state import state

YAML = """\
version: 1
name: abacus
base: phony
users:
  - {name: ada, uid: 1000, rename_from: auto, password: env:NOT_SET}
network:
  wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}
  wifi: {ssid: lab, psk: env:NOT_SET, country: IT}
roles: {worker: {wifi: false}}
nodes: {count: 5, name: "node{n}", head: 0}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "cluster.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shared(tmp_path_factory, small_master):
    root = tmp_path_factory.mktemp("cache")
    import_base(small_master, store=Store(root), progress=Quiet(), name="phony")
    return root


@pytest.fixture
def cache(shared, monkeypatch):
    monkeypatch.setenv("PIIMAGE_CACHE", str(shared))
    return shared


def run(*words):
    return CliRunner().invoke(app, ["plan", *map(str, words)])


def found(*words):
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_plan_leaves_nothing_behind(home, cache):
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*") if "locks" not in p.parts}

    assert run().exit_code == 0

    assert [p.name for p in home.iterdir()] == ["cluster.yaml"]
    after = {p: p.stat().st_mtime_ns for p in cache.rglob("*") if "locks" not in p.parts}
    assert after == before


def test_a_variant_is_told_once_for_all_its_nodes(home, cache):
    record = found()

    assert [(v["role"], v["nodes"]) for v in record["variants"]] == [
        ("head", ["node0"]),
        ("worker", ["node1", "node2", "node3", "node4"]),
    ]
    assert [n["name"] for n in record["nodes"]] == [f"node{n}" for n in range(5)]
    ids = {v["role"]: v["id"] for v in record["variants"]}
    assert {n["name"]: n["variant"] for n in record["nodes"]}["node3"] == ids["worker"]
    assert len(set(ids.values())) == 2
    assert all(v["exact"] for v in record["variants"])


def test_a_node_alone_has_its_variant_alone(home, cache):
    record = found("--node", "3")

    assert [(v["role"], v["nodes"]) for v in record["variants"]] == [("worker", ["node3"])]
    assert [n["number"] for n in record["nodes"]] == [3]


def test_users_and_units_are_named(home, cache):
    (variant,) = found("--node", "0")["variants"]

    assert {(u["action"], u["name"], u["uid"]) for u in variant["users"]} == {
        ("remove", "pi", 1000),
        ("add", "ada", 1000),
    }
    assert variant["units"]["chrony.service"] == "enable"
    assert "ssh.service" not in variant["units"], "it is enabled in the base"


def test_secrets_are_words(home, cache, monkeypatch):
    monkeypatch.setenv("NOT_SET", "a good passphrase")
    record = found("--node", "0")

    files = {f["path"]: f for f in record["nodes"][0]["files"]}
    assert any("<Wi-Fi key>" in line for line in files[slots.NETWORK]["diff"])
    assert any("<password hash of ada>" in line for line in files[slots.USER_DATA]["diff"])
    assert "+<private host key of node0>" in files[slots.HOST_KEY]["diff"]
    assert "a good passphrase" not in json.dumps(record)
    assert "PRIVATE KEY" not in json.dumps(record)


def test_text_and_json_name_the_same_files(home, cache):
    record = found("--node", "1")
    said = run("--node", "1", "--brief").stdout.splitlines()

    (variant,) = record["variants"]
    named = [line.split()[:2] for line in said if line[:6] in ("    + ", "    ~ ", "    - ")]
    signs = {"add": "+", "change": "~", "remove": "-"}
    assert named == [
        [signs[f["action"]], f["path"]] for f in (*variant["files"], *record["nodes"][0]["files"])
    ]
    counts = Counter(f["action"] for f in variant["files"])
    words = f"{counts['change']} changed, {counts['add']} added, {counts['remove']} removed"
    assert f"  files       {words}" in said
    assert not [line for line in said if line.startswith("        ")]


def test_diffs_are_of_what_changes_and_of_all_on_demand(home, cache):
    usual, full = run("--node", "1").stdout, run("--node", "1", "--diff").stdout

    assert "        -debian" in usual
    assert "+PermitRootLogin" not in usual
    assert "        +PermitRootLogin prohibit-password" in full


def test_without_names_of_nodes_their_own_files_are_counted(home, cache):
    record = found()
    said = run().stdout.splitlines()

    for node in record["nodes"]:
        name, count = node["name"], len(node["files"])
        assert f"node `{name}`: {count} files of its own; `--node {name}` lists them" in said


def test_packages_that_are_wanted_and_not_settled(home, cache):
    text = YAML.replace("roles:", "packages: [htop]\nmpi: {flavour: openmpi}\nroles:")
    (home / "cluster.yaml").write_text(text)

    (variant,) = found("--node", "1")["variants"]
    said = run("--node", "1").stdout

    assert (variant["exact"], variant["id"], variant["packages"]) == (False, None, None)
    assert variant["wanted"]["htop"] == "`packages` of role `worker`"
    assert set(variant["waits_for_packages"]) == {"mpi"}
    assert "/etc/passwd" in {f["path"] for f in variant["files"]}
    assert "waits       `mpi` for its packages: the base of role `worker` has no `openmpi`" in said
    assert said.endswith(
        "next: `piimage build` installs them, and the plan is exact from then on\n"
    )
    assert not (home / "cluster.lock").exists()


def test_packages_that_are_settled_and_not_installed(home, cache):
    (home / "cluster.yaml").write_text(YAML.replace("roles:", "packages: [htop]\nroles:"))
    cluster = load(home / "cluster.yaml", check_secrets=False).cluster
    packages = Packages(cluster, Store(), Quiet())
    base, chain = packages.known(cluster.roles[0])
    assert chain is None
    htop = lock.Package(
        name="htop", version="3.4.1-5", architecture="arm64", sha256="0" * 64, size=1, installed=1, file="htop.deb"
    )  # fmt: skip
    layer = lock.Layer(
        base="phony",
        below=lock.below(base, []),
        roles=("head", "worker"),
        wanted=tuple(sorted(packages.wanted(cluster.roles[0]))),
        packages=(htop,),
        steps=(lock.Step("remove", ("nano",)), lock.Step("unpack", ("htop",))),
    )
    lock.write(lock.location(cluster.source), lock.Lock((layer,)))

    (variant,) = found("--node", "1")["variants"]
    said = run("--node", "1").stdout

    assert (variant["exact"], variant["waits_for_packages"]) == (False, {})
    assert variant["packages"] == {"htop": "3.4.1-5"}
    assert variant["packages_removed"] == ["nano"]
    assert "  packages    1 package, not installed yet: htop\n              - nano\n" in said


def test_what_no_package_cures_is_an_error(home, cache):
    (home / "cluster.yaml").write_text(YAML.replace("uid: 1000", "uid: 1000, shell: /bin/fish"))

    result = run()

    assert isinstance(result.exception, UnsupportedError)
    assert "shell `/bin/fish`" in result.exception.message


def test_another_base_by_name_or_path(home, cache, small_master):
    (home / "cluster.yaml").write_text(YAML.replace("base: phony", "base: debian-13"))

    assert isinstance(run().exception, PiimageError)
    by_name = found("--base", "phony")
    by_path = found("--base", small_master)

    assert by_name["variants"][0]["base"]["name"] == "phony"
    assert by_path["variants"][0]["base"]["id"] == by_name["variants"][0]["base"]["id"]


def test_a_node_that_is_not_there(home, cache):
    result = run("--node", "9")

    assert isinstance(result.exception, ConfigError)
    assert "has no node `9`" in result.exception.message


@pytest.mark.parametrize("base", [phony.debian, phony.raspios])
def test_words_stand_in_for_every_secret(base):
    """What is stamped with them differs from the real thing in secrets alone: the same slots are filled."""
    cluster, facts = phony.cluster(), base()
    node = cluster.nodes[0]
    variant = plan.plan_variant(cluster, node.role, facts)

    stamped = plan.plan_stamp(cluster, node, facts, variant, "f" * 64, stand_ins(cluster))
    real = plan.plan_stamp(cluster, node, facts, variant, "f" * 64, phony.secrets(cluster))

    assert set(stamped.slots) == set(real.slots)
    assert stamped.slots[slots.HOSTS] == real.slots[slots.HOSTS]
    for content in stamped.slots.values():
        assert phony.PSK.encode() not in content
        assert phony.HASH.encode() not in content


def test_the_state_is_not_touched(home, cache, monkeypatch):
    monkeypatch.setenv("NOT_SET", "a good passphrase")
    made = state.init(load(home / "cluster.yaml", check_secrets=False).cluster)
    before = sorted(made.path.rglob("*"))

    found()

    assert sorted(made.path.rglob("*")) == before


def test_lists_fit_the_terminal(home, cache, monkeypatch):
    wide = run("--brief").stdout
    monkeypatch.setattr("piimage.cli.table.room", lambda: 60)

    narrow = run("--brief").stdout

    def lists(text):
        return [
            x for x in text.splitlines() if x.startswith(("  ", " " * 14)) and x[4] not in "+-~"
        ]

    assert max(map(len, lists(wide))) > 60 >= max(map(len, lists(narrow)))
    assert narrow.split() == wide.split()
