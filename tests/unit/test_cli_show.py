"""`piimage show` and `piimage profile`: values, origins, and what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from piimage.cli.main import app
from piimage.errors import ConfigError

SAMPLE = Path(__file__).parents[2] / "cluster.yaml"
PSK = "a1b8c687290bdc760b17c811b3a153282849fbb7e5c7b6b05389a4ad2b2ecf3a"


@pytest.fixture(autouse=True)
def _no_bases(tmp_path, monkeypatch):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def fields(*words):
    result = run("show", *words, "--json")
    assert result.exit_code == 0, result.output
    return {field["field"]: field for field in json.loads(result.stdout)["fields"]}


def test_a_node_by_number_is_the_one_by_name():
    assert run("show", "3", SAMPLE).stdout == run("show", "node3", SAMPLE).stdout


def test_json_has_values_and_origins():
    found = fields("3", SAMPLE)

    assert found["nodes[3].address"]["value"] == "10.1.10.243/24"
    assert found["users[1].uid"]["value"] == 1001
    line = SAMPLE.read_text().splitlines().index("    uid: 1001") + 1
    assert found["users[1].uid"]["origin"] == f"{SAMPLE}:{line}"
    assert found["users[1].gid"]["origin"] == "default"
    assert found["time.servers"]["value"] == ["pool.ntp.org"]


def test_every_value_has_an_origin_that_the_resolver_knows(tmp_path):
    """A field that is shown under a name of its own would be told as a default, whatever the file says."""
    full = tmp_path / "cluster.yaml"
    full.write_text(
        SAMPLE.read_text()
        .replace("locale:", "domain: lab.example\nstress: true\nlocale:")
        .replace("mpi: {", "blinkt: {show: load, brightness: 3}\nmpi: {smoke_at_boot: true, ")
        .replace(
            "{path: /srv/cluster, server", '{path: /srv/cluster, mode: "0775", owner: ops, server'
        )
    )
    found = fields("0", full)

    for name in (
        "domain", "stress", "locale", "blinkt.show", "blinkt.brightness", "mpi.smoke_at_boot", "mpi.flavour",
        "mpi.slots", "shares[0].path", "shares[0].server", "shares[0].mode", "shares[0].owner", "time.servers",
        "network.wired.subnet", "network.wifi.ssid", "network.wifi.psk", "network.wifi.country", "root.password",
        "ssh.password_authentication", "ssh.x11_forwarding", "users[0].gecos", "users[0].rename_from",
        "users[0].sudo", "users[0].password", "keymap", "timezone", "name",
    ):  # fmt: skip
        assert found[name]["origin"].startswith(f"{full}:"), name


def test_a_secret_in_the_file_is_not_shown():
    for words in (["--explain"], ["--json"], []):
        result = run("show", "0", SAMPLE, *words)
        assert PSK not in result.output
        assert "(hidden)" in result.output


def test_secrets_by_reference_need_not_be_there(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(SAMPLE.read_text().replace(PSK, "env:NOT_SET_ANYWHERE"))

    assert fields("1", path)["network.wifi.psk"]["value"] == "env:NOT_SET_ANYWHERE"


def test_tokens_of_the_node_itself_come_after_its_roles(tmp_path):
    path = tmp_path / "cluster.yaml"
    text = SAMPLE.read_text().replace("worker: {}", "worker: {cmdline: [quiet]}")
    path.write_text(
        text.partition("nodes:")[0] + "nodes:\n- {role: head}\n- cmdline: [isolcpus=3]\n- {}\n"
    )
    lines = path.read_text().splitlines()
    role = next(n for n, line in enumerate(lines, 1) if "cmdline: [quiet]" in line)
    own = next(n for n, line in enumerate(lines, 1) if "isolcpus" in line)

    found = fields("1", path)["nodes[1].cmdline"]

    assert found["value"] == ["quiet", "isolcpus=3"]
    assert found["entries"] == [f"{path}:{role}", f"{path}:{own}"]
    assert fields("2", path)["nodes[2].cmdline"]["value"] == ["quiet"]


def test_a_node_that_is_not_there():
    result = run("show", "node9", SAMPLE)

    assert isinstance(result.exception, ConfigError)
    assert result.exception.hint == "it has 5: node0 to node4, or 0 to 4"


@pytest.fixture
def beside(tmp_path):
    """A cluster.yaml's directory with a profile of its own, which goes before ours."""
    folder = tmp_path / "profiles" / "role"
    folder.mkdir(parents=True)
    (folder / "worker.yaml").write_text(
        "# ours\ndescription: works\nwifi: false\npackages:\n  - htop\n  - git\n"
    )
    return tmp_path


def test_profiles_are_listed_with_where_they_come_from(beside):
    result = run("profile", "list", "-c", beside / "cluster.yaml")

    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["role/worker", "beside", "cluster.yaml", "works"] in lines
    assert ["board/pi400", "shipped", "Raspberry", "Pi", "400"] in lines
    found = json.loads(run("profile", "list", "--json", "-c", beside / "cluster.yaml").stdout)
    assert {each["from"] for each in found} == {"shipped", "beside cluster.yaml"}


def test_a_profile_is_shown_with_lines(beside):
    result = run("profile", "show", "worker", "-c", beside / "cluster.yaml")

    assert result.stdout.splitlines() == [
        f"role/worker  {beside}/profiles/role/worker.yaml",
        "  wifi         no         line 3",
        "  packages     htop, git  line 4",
        "  description  works      line 2",
    ]
    found = json.loads(
        run("profile", "show", "worker", "--json", "-c", beside / "cluster.yaml").stdout
    )
    assert found["sets"] == {"description": "works", "packages": ["htop", "git"], "wifi": False}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pi4", "did you mean `board/pi4`?"),
        ("role/wroker", "did you mean `role/worker`?"),
        ("size/xl", "profiles: `role/head`, `role/worker`, `board/cm3`"),
    ],
)
def test_a_profile_that_is_not_there(name, hint):
    result = run("profile", "show", name, "-c", SAMPLE)

    assert isinstance(result.exception, ConfigError)
    assert result.exception.message == f"there is no profile `{name}`"
    assert result.exception.hint.startswith(hint)


def test_a_profile_that_is_wrong_is_told_with_its_line(beside):
    (beside / "profiles/role/worker.yaml").write_text("wfi: false\n")

    for words in (["list"], ["show", "worker"]):
        result = run("profile", *words, "-c", beside / "cluster.yaml")
        (found,) = result.exception.diagnostics
        assert (found.line, found.hint) == (1, "did you mean `wifi`?")


def test_a_long_value_is_wrapped_below_itself_on_a_terminal(monkeypatch):
    """A terminal would break it in the middle of a word, and leave its origin where no other is."""
    wide = run("show", "3", SAMPLE, "--explain").stdout
    monkeypatch.setattr("piimage.cli.show.room", lambda: 80)

    narrow = run("show", "3", SAMPLE, "--explain").stdout

    assert sorted(narrow.split()) == sorted(wide.split())
    lines = narrow.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("  users[0].groups "))
    first, second = lines[start : start + 2]
    assert first.endswith(",  default")
    assert second.startswith(" " * (len("  users[0].groups") + 1))
    assert max(len(first), len(second)) <= 80 < max(map(len, wide.splitlines()))
