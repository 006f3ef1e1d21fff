"""Verify over a build of two nodes: nothing on what is clean, and every way to break a card by its name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from mutations import MUTATIONS, SEED, Mutation, at, do, text
from phony import make_phony
from readback import tool
from typer.testing import CliRunner

from piimage.cli.main import app
from piimage.disk.guestfs import Appliance
from piimage.disk.sparse import copy_sparse
from piimage.disk.table import read_table
from piimage.errors import VerifyError
from piimage.progress import Quiet

if TYPE_CHECKING:
    from pathlib import Path

HASH = "$6$abcdefgh$" + "K" * 86
YAML = """\
version: 1
name: abacus
base: phony
timezone: Europe/Rome
users:
  - {name: ada, uid: 1000, rename_from: auto, sudo: nopasswd, password: {hash: "HASH"}}
  - {name: ops, uid: 1001, sudo: nopasswd}
network:
  wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}
  wifi: {ssid: lab, psk: a1b8c687290bdc760b17c811b3a153282849fbb7e5c7b6b05389a4ad2b2ecf3a, country: IT}
nodes: {count: 5, name: "node{n}", head: 0}
""".replace("HASH", HASH)


@dataclass(frozen=True)
class Site:
    home: Path

    @property
    def dist(self) -> Path:
        return self.home / "dist" / "abacus"


@pytest.fixture(scope="module")
def site(tmp_path_factory, launches):
    """All nodes as stamps, and node 3 as an image as well: two launches."""
    home = tmp_path_factory.mktemp("verify")
    boot = {"vmlinuz": b"kernel", "initrd.img": b"initramfs"}
    make_phony(home / "phony.img", root_size=48 << 20, boot=boot)
    (home / "cluster.yaml").write_text(YAML)
    env = {**launches.environment(), "PIIMAGE_CACHE": str(home / "cache"), "NO_COLOR": "1"}
    for words in (
        "base import phony.img --name phony",
        "build --all",
        "build --node 3 --format img",
    ):
        argv = [sys.executable, "-m", "piimage", *words.split()]
        done = subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return Site(home)


@pytest.fixture
def verify(site, monkeypatch):
    monkeypatch.chdir(site.home)
    monkeypatch.setenv("PIIMAGE_CACHE", str(site.home / "cache"))

    return verdicts


def verdicts(*words):
    result = CliRunner().invoke(app, ["verify", *map(str, words), "--json", "--quiet"])
    assert result.stdout, result.exception
    found = json.loads(result.stdout)
    assert bool(result.exception) == any(v["findings"] for v in found)
    return found


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Without cluster, build or cache."""
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    return verdicts


def test_nothing_is_wrong_with_what_was_built(verify, site):
    found = verify(site.dist)

    assert [v["findings"] for v in found] == [[]] * len(found)
    assert [v["notes"] for v in found] == [[]] * len(found)


def findings(verdict):
    return [(f["rule"], f["path"]) for f in verdict["findings"]]


@pytest.fixture
def card(site, tmp_path):
    """A copy of node 3's image, which lies elsewhere."""
    path = tmp_path / "card.img"
    copy_sparse(site.dist / "node3.img", path)
    path.chmod(0o600)
    return path


def test_a_copy_elsewhere_is_known_by_what_it_says(verify, card):
    (found,) = verify(card)

    assert (found["name"], found["findings"], found["notes"]) == ("node3", [], [])


def test_a_card_alone_is_looked_at_for_traps_and_says_what_that_leaves_out(alone, card):
    (found,) = alone(card)

    assert found["findings"] == []
    assert len(found["notes"]) == 2


def test_a_card_is_held_against_the_build_that_is_named(alone, card, site):
    (found,) = alone(card, "--dist", site.dist)

    assert (found["findings"], found["notes"]) == ([], [])


def test_the_state_alone_knows_what_the_build_wrote(verify, card, site, monkeypatch, tmp_path):
    """No census and no imprint: what is left is the plan, with the secrets of the state."""
    for name in ("cluster.yaml", "cluster.state"):
        place = site.home / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, tmp_path / name)
    cache = tmp_path / "cache"
    shutil.copytree(site.home / "cache/bases", cache / "bases")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIIMAGE_CACHE", str(cache))
    text(f"{SEED}/meta-data", "instance-id: other\n")(card)
    do("rm /etc/shells", "sif /etc/sudoers.d/010_ada mode 0100644")(card)

    (found,) = verify(card)

    assert {("PI101", f"{SEED}/meta-data"), ("PI102", "/etc/sudoers.d/010_ada")} <= set(
        findings(found)
    )
    assert "/etc/shells" not in {path for _, path in findings(found)}, "only the base has it"
    assert any("census" in note for note in found["notes"])


def test_the_card_of_another_node_is_told(verify, card):
    (found,) = verify(card, "--node", "2")

    assert "PI005" in {rule for rule, _ in findings(found)}
    assert ("PI101", f"{SEED}/meta-data") in findings(found)


def test_mounting_a_card_breaks_no_promise_and_what_is_done_to_it_is_named(verify, card):
    """What Linux itself writes when it mounts is nobody's mistake: one launch."""
    table = read_table(card)
    with Appliance(card, progress=Quiet()) as appliance:
        appliance.mount(table.partition(2), "/")
        appliance.mount(table.partition(1), "/boot/firmware")
        appliance.script(
            "chmod 644 /sysroot/etc/sudoers.d/011_ops; touch /sysroot/boot/firmware/new"
        )

    (found,) = verify(card)

    assert findings(found) == [("PI102", "/etc/sudoers.d/011_ops"), ("PI104", "/boot/firmware/new")]


@pytest.fixture
def copied(site, tmp_path):
    """The whole build, copied to where it may be broken."""
    home = tmp_path / "copied"
    shutil.copytree(site.home / "dist", home)
    return home / "abacus"


def test_a_card_that_is_there_twice_is_told(verify, copied, site):
    """The stamp of one node in the place of another's."""
    shutil.copy(copied / "stamps/node2.stamp", copied / "stamps/node4.stamp")

    found = {v["name"]: {f["rule"] for f in v["findings"]} for v in verify(copied)}

    shared = {"PI301", "PI302", "PI303", "PI304", "PI305"}
    assert shared | {"PI005"} <= found["node4"]
    assert shared <= found["node2"]
    assert found["node1"] == set()


def test_files_of_a_build_are_what_its_manifest_and_checksums_say(verify, copied):
    at(300 << 10, b"x")(copied / "variants/worker.img")
    (copied / "stamps/node1.stamp").unlink()

    found = {v["name"]: [f["rule"] for f in v["findings"]] for v in verify(copied)}

    assert found["variant worker"] == ["PI004"]
    assert found["node1"] == ["PI103"]


def test_other_formats_are_unpacked(verify, site, tmp_path):
    packed = tmp_path / "card.img.xz"
    with packed.open("wb") as sink:
        subprocess.run(["xz", "-0", "-c", site.dist / "node3.img"], stdout=sink, check=True)

    (found,) = verify(packed)

    assert (found["name"], found["findings"]) == ("node3", [])


def test_machines_can_read_the_verdict(site, card, tmp_path, monkeypatch):
    monkeypatch.chdir(site.home)
    monkeypatch.setenv("PIIMAGE_CACHE", str(site.home / "cache"))
    do("rm /etc/shells")(card)
    junit, sarif = tmp_path / "junit.xml", tmp_path / "out.sarif"

    result = CliRunner().invoke(
        app, ["verify", str(card), "--junit", str(junit), "--sarif", str(sarif), "--github", "-q"]
    )

    assert isinstance(result.exception, VerifyError)
    assert result.exception.exit_code == 4
    assert "PI103  /etc/shells: the file is missing" in result.stdout
    assert "::error title=PI103 nothing is missing::node3: /etc/shells" in result.stdout
    (suite,) = ET.parse(junit).getroot()
    assert (suite.get("name"), suite.get("failures")) == ("node3", "1")
    (run,) = json.loads(sarif.read_text())["runs"]
    (told,) = run["results"]
    assert (told["ruleId"], run["tool"]["driver"]["rules"][told["ruleIndex"]]["id"]) == (
        "PI103",
        "PI103",
    )
    assert "HASH" not in sarif.read_text()


def test_reading_leaves_the_card_as_it_is(verify, card):
    before = tool("sha256sum", card)

    verify(card)

    assert tool("sha256sum", card) == before


@pytest.mark.parametrize("mutation", [pytest.param(m, id=m.name) for m in MUTATIONS])
def test_a_broken_card_is_named(mutation: Mutation, verify, card, site, tmp_path):
    mutation.act(card)
    words: tuple[object, ...] = ()
    if mutation.cluster is not None:
        shutil.copytree(site.home / "cluster.state", tmp_path / "cluster.state")
        (tmp_path / "cluster.yaml").write_text(YAML.replace(*mutation.cluster))
        words = (tmp_path / "cluster.yaml", "--dist", site.dist)

    (found,) = verify(card, *words)

    if mutation.cluster is not None:
        assert findings(found) == [(mutation.rules, "")]
    assert set(mutation.rules.split()) <= {rule for rule, _ in findings(found)}, found["findings"]
    if mutation.path:
        assert mutation.path in {path for _, path in findings(found)}, found["findings"]
    assert any(mutation.says in f["message"] for f in found["findings"]), found["findings"]


#: These need a promise, or whose card it is, to be seen.
_PROMISES = {
    "PI001",
    "PI005",
    "PI101",
    "PI102",
    "PI103",
    "PI104",
    "PI105",
    "PI106",
    "PI107",
    "PI108",
}


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(m, id=m.name)
        for m in MUTATIONS
        if m.alone and m.cluster is None and set(m.rules.split()) - _PROMISES
    ],
)
def test_traps_are_named_where_nothing_is_known_of_the_card(mutation: Mutation, alone, card):
    mutation.act(card)

    (found,) = alone(card)

    assert set(mutation.rules.split()) - _PROMISES <= {rule for rule, _ in findings(found)}
