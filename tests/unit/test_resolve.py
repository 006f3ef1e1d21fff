from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from piimage import resolve
from piimage.cluster import Blinkt, SecretRef
from piimage.errors import ConfigError
from piimage.facts import Facts, FileFact, OsRelease, PartitionTable
from piimage.spec.data import data_dirs, is_shipped

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "cluster.yaml"
SMALL = """\
version: 1
name: lab
users: [{name: ada, uid: 1000}]
network: {wired: {subnet: 10.1.10.0/24}}
nodes: {count: 3}
"""
PASSWD = """\
root:x:0:0::/root:/bin/sh
backup:x:34:34::/:/bin/false
_odd:x:990:990::/:/bin/false
pi:x:1000:1000::/home/pi:/bin/bash
second:x:1001:1001::/home/second:/bin/bash
"""
GROUP = "root:x:0:\n_odd:x:990:\npi:x:1000:\nsecond:x:1001:\nspecial:x:1500:\n"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return path

    return write


def codes(path, **more):
    with pytest.raises(ConfigError) as caught:
        resolve.load(path, env=more.pop("env", {}), **more)
    return [found.code for found in caught.value.diagnostics]


def base_facts(**more):
    def file(text):
        return FileFact(kind="file", mode=0o644, uid=0, gid=0, content=text.encode())

    table = PartitionTable(label="dos", disk_id="0" * 8, sector_size=512, size=0, partitions=())
    return Facts(
        image_id="x",
        os=OsRelease(id="debian"),
        architecture="arm64",
        table=table,
        mounts={},
        firmware="/boot/firmware",
        files={"/etc/passwd": file(PASSWD), "/etc/group": file(GROUP)},
        units={},
        packages={},
        network_stack="netplan-networkd",
        **more,
    )


def test_the_sample_is_valid_offline_with_an_empty_environment():
    loaded = resolve.load(SAMPLE, env={})

    cluster = loaded.cluster
    assert [node.name for node in cluster.nodes] == [f"node{n}" for n in range(5)]
    assert [str(node.address) for node in cluster.nodes][::4] == [
        "10.1.10.240/24",
        "10.1.10.244/24",
    ]
    assert [(user.name, user.uid, user.gid) for user in cluster.users] == [
        ("federico", 1000, 1000),
        ("ops", 1001, 1001),
    ]
    assert cluster.users[0].rename_from == "auto"
    assert cluster.head.name == "node0"
    assert not loaded.diagnostics


def test_the_sample_stays_short():
    lines = SAMPLE.read_text().splitlines()

    assert len(lines) <= 45
    assert lines[0].startswith("# yaml-language-server: $schema=")
    assert not any(word in SAMPLE.read_text() for word in ("password: env:", "psk: env:"))


def test_nodes_of_equal_input_have_equal_roles():
    cluster = resolve.load(SAMPLE, env={}).cluster

    assert len(cluster.roles) == 2
    assert len({node.role for node in cluster.nodes[1:]}) == 1


def test_what_differs_in_identity_only_shares_a_role(write):
    text = SMALL.replace(
        "nodes: {count: 3}",
        "nodes: [{name: a}, {name: b, board: pi3, mac: dc:a6:32:00:00:01},"
        " {name: c, board: pi4, cmdline: [x=1], address: 10.1.10.77}]",
    )

    assert len(resolve.load(write(text), env={}).cluster.roles) == 2


def test_a_server_has_a_role_of_its_own_and_shares_have_the_first_user_as_owner(write):
    text = SMALL + "shares: [{path: /srv/a}, {path: /srv/b, server: node2, owner: root}]\n"

    cluster = resolve.load(write(text), env={}).cluster

    assert [node.role.serves for node in cluster.nodes] == [("/srv/a",), (), ("/srv/b",)]
    assert [role.name for role in cluster.roles] == ["head", "worker", "worker"]
    assert [(share.server, share.owner) for share in cluster.shares] == [
        ("node0", cluster.users[0].name),
        ("node2", "root"),
    ]


def test_provenance_names_file_profile_or_default(write, tmp_path):
    profile = tmp_path / "profiles/role/worker.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("target: graphical\n")

    found = resolve.load(write(SMALL + "base: debian-13\n"), env={}).provenance

    assert found["name"].endswith("cluster.yaml:2")
    assert found["keymap"] == "default"
    assert found["nodes[1].target"] == "profile role/worker (beside cluster.yaml)"
    assert found["nodes[0].target"] == "default"
    assert found["nodes[1].base"].endswith("cluster.yaml:6")


def test_a_mistake_in_a_profile_is_told_in_its_own_file(write, tmp_path):
    profile = tmp_path / "profiles/role/worker.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("targt: graphical\nname: x\n")

    with pytest.raises(ConfigError) as caught:
        resolve.load(write(SMALL), env={})

    found = caught.value.diagnostics
    assert (found[0].line, found[0].hint) == (1, "did you mean `target`?")
    assert all(one.file == str(profile) for one in found)


def test_secret_files_are_found_beside_the_file_and_at_home(write, tmp_path):
    (tmp_path / "psk").write_text("a good passphrase\n")
    (tmp_path / "psk").chmod(0o600)
    (tmp_path / "pw").write_text("x")
    (tmp_path / "pw").chmod(0o644)
    text = SMALL.replace("/24}}", "/24}, wifi: {ssid: x, psk: file:psk, country: IT}}")
    text += "root: {password: file:~/pw}\n"

    loaded = resolve.load(write(text), env={"HOME": str(tmp_path)})

    assert loaded.cluster.wifi.psk == SecretRef("file", str(tmp_path / "psk"))
    assert loaded.cluster.root_password == SecretRef("file", str(tmp_path / "pw"))
    assert [found.code for found in loaded.diagnostics] == ["open-secret"]


def test_a_secret_file_with_a_bad_secret(write, tmp_path):
    (tmp_path / "psk").write_text("short\n")
    (tmp_path / "psk").chmod(0o600)
    text = SMALL.replace("/24}}", "/24}, wifi: {ssid: x, psk: file:psk, country: IT}}")

    assert codes(write(text)) == ["bad-secret"]


def test_without_secrets_references_need_not_be_there(write):
    text = SMALL.replace("uid: 1000", "uid: 1000, password: env:NO, ssh_keys: [file:no.pub]")

    assert codes(write(text)) == ["no-secret", "no-secret"]
    assert resolve.load(write(text), env={}, check_secrets=False).diagnostics == ()


def test_an_unreadable_key_file_and_a_private_key(write, tmp_path):
    (tmp_path / "a.pub").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "b.pub").write_text("# none\n\n")
    (tmp_path / "c.pub").write_bytes(b"\xff\xfe")
    text = SMALL.replace("uid: 1000", "uid: 1000, ssh_keys: [file:a.pub, file:b.pub, file:c.pub]")

    assert codes(write(text)) == ["ssh-key", "ssh-key", "bad-secret"]


def test_accounts_of_the_base_are_in_the_way(write):
    text = SMALL.replace(
        "[{name: ada, uid: 1000}]",
        "[{name: ada, uid: 1000}, {name: bob, uid: 1002, gid: 1500}, {name: _odd, uid: 1003}]",
    )

    assert codes(write(text), facts=base_facts()) == ["base-uid", "base-gid", "reserved-name"]
    assert resolve.load(write(text), env={}).cluster.users[0].uid == 1000


def test_an_account_that_is_renamed_is_not_in_the_way(write):
    text = SMALL.replace("uid: 1000", "uid: 1000, rename_from: auto")
    other = SMALL.replace("uid: 1000", "uid: 1001, rename_from: second")
    wrong = SMALL.replace("uid: 1000", "uid: 1005, rename_from: third")

    assert resolve.load(write(text), env={}, facts=base_facts()).cluster.users[0].uid == 1000
    assert resolve.load(write(other), env={}, facts=base_facts()).cluster.users[0].uid == 1001
    assert codes(write(wrong), facts=base_facts()) == ["rename-from"]


def test_facts_are_asked_for_each_base_that_is_named(write, tmp_path):
    asked = []
    text = SMALL + "roles: {head: {base: ./x.img}}\n"

    resolve.load(write(text), env={}, facts=asked.append)

    assert asked == ["debian-13", str(tmp_path / "x.img")]


def test_time_zones_are_those_of_the_base(write):
    text = SMALL + "timezone: Europe/Rome\n"
    facts = base_facts(timezones=frozenset({"Etc/UTC", "Europe/Rome"}))
    poor = base_facts(timezones=frozenset({"Etc/UTC"}))
    free = text.replace("uid: 1000", "uid: 1100")

    assert resolve.load(write(free), env={}, facts=facts).cluster.timezone == "Europe/Rome"
    assert codes(write(free), facts=poor) == ["timezone"]


def test_the_catalog_decides_when_it_is_known(write):
    text = SMALL + "base: debain-13\n"

    assert resolve.load(write(text), env={}).cluster.nodes[0].role.base == "debain-13"
    assert codes(write(text), bases={"debian-13"}) == ["unknown-base"]


def test_subnets_that_will_make_trouble_are_warned_of(write):
    wifi = "/24}, wifi: {ssid: x, psk: {hash: %s}, country: IT}}" % ("a" * 64)
    home = SMALL.replace("10.1.10.0", "192.168.1.0").replace("/24}}", wifi)
    public = SMALL.replace("10.1.10.0", "8.8.8.0")

    for text, code in ((home, "home-subnet"), (public, "public-subnet")):
        assert [found.code for found in resolve.load(write(text), env={}).diagnostics] == [code]


def test_data_beside_goes_before_what_ships(tmp_path):
    (tmp_path / "profiles").mkdir()

    first, *rest = data_dirs("profiles", tmp_path)

    assert first == tmp_path / "profiles"
    assert rest == list(data_dirs("profiles"))
    assert len(data_dirs("profiles", REPOSITORY)) == 1
    assert is_shipped(REPOSITORY / "profiles/role/head.yaml")
    assert not is_shipped(first)


def test_every_shipped_profile_is_valid():
    for kind in ("role", "board"):
        for path in (REPOSITORY / "profiles" / kind).glob("*.yaml"):
            shelf = resolve.Shelf(REPOSITORY)
            assert shelf.get(kind, path.stem) is not None, path
            assert shelf.findings == []
            assert shelf.get(kind, path.stem).traits.description


def sixty_four(mistakes=0):
    nodes = "".join(
        f"  - {{name: n{n}, mac: dc:a6:32:00:00:{n:02x}, address: 10.1.12.{n + 1}, board: pi4,"
        f" role: {'head' if n == 0 else 'worker'}{', bord: x' if n < mistakes else ''}}}\n"
        for n in range(64)
    )
    return SMALL.replace("10.1.10.0/24", "10.1.0.0/16").replace(
        "nodes: {count: 3}\n", "nodes:\n" + nodes
    )


@pytest.mark.parametrize("mistakes", [0, 64])
def test_sixty_four_nodes_take_a_blink(write, mistakes):
    path = write(sixty_four(mistakes))
    start = time.process_time()

    if mistakes:
        assert codes(path) == ["unknown-key"] * 64
    else:
        assert len(resolve.load(path, env={}).cluster.nodes) == 64

    assert time.process_time() - start < 0.6


def test_json_schema_takes_the_sample_and_refuses_a_typo():
    import jsonschema  # noqa: PLC0415 -- only here
    import yaml  # noqa: PLC0415 -- only here

    from piimage.spec.schema import json_schema  # noqa: PLC0415 -- only here

    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    sample = yaml.safe_load(SAMPLE.read_text())
    assert list(validator.iter_errors(sample)) == []

    for path, key in (((), "nmae"), (("users", 0), "sduo"), (("network", "wifi"), "contry")):
        wrong = json.loads(json.dumps(sample))
        place = wrong
        for part in path:
            place = place[part]
        place[key] = "x"
        assert list(validator.iter_errors(wrong)) != []


def test_the_schema_in_the_documentation_is_current():
    from piimage.spec.schema import json_schema  # noqa: PLC0415 -- only here

    path = REPOSITORY / "docs/reference/cluster.schema.json"

    assert json.loads(path.read_text()) == json_schema(), "piimage schema > " + path.name


RASPBERRY = "deb http://archive.raspberrypi.example/debian/ trixie main\n"


@pytest.mark.parametrize(
    ("path", "text", "codes"),
    [
        ("/etc/apt/sources.list.d/raspi.list", RASPBERRY, ["licence"]),
        ("/etc/apt/sources.list.d/raspi.sources", f"URIs: {RASPBERRY.split()[1]}\n", ["licence"]),
        ("/etc/apt/sources.list", "# " + RASPBERRY, ["no-wolfram"]),
        ("/etc/apt/sources.list.d/raspi.list.bak", RASPBERRY, ["no-wolfram"]),
        (
            "/etc/apt/sources.list",
            "deb http://raspbian.raspberrypi.example/ trixie main\n",
            ["no-wolfram"],
        ),
    ],
)
def test_wolfram_needs_the_archive_of_raspberry_pi_os(write, path, text, codes):
    base = base_facts()
    source = FileFact(kind="file", mode=0o644, uid=0, gid=0, content=text.encode())
    facts = replace(base, files={path: source})
    file = write(SMALL + "wolfram: true\n")
    if codes == ["licence"]:
        found = resolve.load(file, env={}, facts=facts).diagnostics
    else:
        with pytest.raises(ConfigError) as caught:
            resolve.load(file, env={}, facts=facts)
        found = caught.value.diagnostics
    assert [finding.code for finding in found] == codes


def test_one_base_with_that_archive_is_enough_and_without_facts_nothing_is_refused(write):
    base = replace(base_facts(), files={})
    source = FileFact(kind="file", mode=0o644, uid=0, gid=0, content=RASPBERRY.encode())
    head = replace(base, files={"/etc/apt/sources.list.d/raspi.list": source})
    file = write(
        SMALL.replace("nodes:", "roles: {head: {base: other}}\nnodes:") + "wolfram: true\n"
    )
    for facts in ({"debian-13": base, "other": head}.get, None):
        assert resolve.load(file, env={}, facts=facts).cluster.wolfram


def test_what_waits_no_longer_is_resolved(write):
    text = SMALL + "stress: true\nblinkt: {show: larson, brightness: 31}\n"
    loaded = resolve.load(write(text), env={})
    assert loaded.diagnostics == ()
    assert loaded.cluster.stress
    assert loaded.cluster.blinkt == Blinkt(show="larson", brightness=31)
    assert resolve.load(write(SMALL), env={}).cluster.blinkt is None
