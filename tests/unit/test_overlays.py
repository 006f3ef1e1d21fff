"""Overlays: from a directory to what a node gets, what they may not touch, and their own tests."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import phony_facts as phony
import pytest
from typer.testing import CliRunner

from piimage.cli.main import app
from piimage.cluster import Overlay, OverlayFile
from piimage.components import overlays, slots
from piimage.delta import Absent, ClashError, Directory, File, Slot, Symlink
from piimage.errors import ConfigError, ExitCode, UnsupportedError
from piimage.plan import plan, recipe
from piimage.plan.overlay_tests import run as run_tests
from piimage.spec.overlays import Rack
from piimage.spec.templates import TemplateFailedError, render

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(p.parent.name for p in (ROOT / "overlays").glob("*/overlay.yaml"))
MOTD = "/etc/motd"


def file(path, content=b"x\n", kind="file", **more):
    return OverlayFile(path=path, kind=kind, source=f"site{path}", content=content, **more)


def site(*files, name="site", **more):
    return Overlay(name=name, files=files, **more)


def cluster(*used, **more):
    """A cluster whose workers have these overlays."""
    role = replace(phony.WORKER, overlays=tuple(o.name for o in used))
    return phony.cluster(worker=role, overlays=used, **more)


def planned(*used, facts=None, **more):
    made = cluster(*used, **more)
    return plan.plan_variant(made, made.nodes[1].role, facts or phony.debian())


def entries(*used, **more):
    return planned(*used, **more).delta.entries


def stamped(*used, number=1):
    made = cluster(*used)
    node, facts = made.nodes[number], phony.debian()
    variant = plan.plan_variant(made, node.role, facts)
    return plan.plan_stamp(made, node, facts, variant, "f" * 64, phony.secrets(made))


def test_each_kind_becomes_its_entry():
    found = entries(
        site(
            file("/opt/a", mode=0o755),
            file("/opt/l", kind="link", target="a"),
            file("/opt/d", kind="dir", mode=0o2775, group="federico"),
            file("/opt/t", b"{{ cluster.name }} {{ os.codename }}", "template"),
            file("/opt/n", b"{{ node.name }}", "template", per_node=True, mode=0o600),
            removes=("/etc/apt/x",),
        )
    )

    assert found["/opt/a"] == File(b"x\n", mode=0o755)
    assert found["/opt/l"] == Symlink("a")
    assert found["/opt/d"] == Directory(0o2775, 0, 1000)
    assert found["/opt/t"].content.endswith(b" trixie")
    assert found["/opt/n"] == Slot(4096, mode=0o600)
    assert found["/etc/apt/x"] == Absent()
    assert found["/opt"] == Directory()


def test_only_the_roles_that_name_it_have_it():
    made = cluster(site(file(MOTD)))

    assert MOTD not in plan.plan_variant(made, phony.HEAD, phony.debian()).delta.entries
    assert entries(site(file(MOTD)))[MOTD] == File(b"x\n")


def test_a_home_and_what_is_missing_in_it_are_its_users():
    found = entries(site(file("/home/federico/.config/x/y")))

    assert found["/home/federico/.config/x/y"] == File(b"x\n", 0o644, 1000, 1000)
    assert found["/home/federico/.config"] == Directory(0o755, 1000, 1000)


@pytest.mark.parametrize(
    ("more", "owner"),
    [
        ({"owner": "federico"}, (1000, 1000)),
        ({"owner": "_chrony"}, (102, 105)),
        ({"owner": "root", "group": "audio"}, (0, 29)),
        ({"group": "federico"}, (0, 1000)),
        ({}, (0, 0)),
    ],
)
def test_owners_are_accounts_of_the_cluster_or_the_base(more, owner):
    entry = entries(site(file("/opt/a", **more)))["/opt/a"]

    assert (entry.uid, entry.gid) == owner


@pytest.mark.parametrize("more", [{"owner": "nosuch"}, {"group": "nosuch"}])
def test_an_owner_that_is_nobody(more):
    with pytest.raises(
        UnsupportedError, match=r"`nosuch` of `/opt/a` is neither in cluster\.yaml nor"
    ):
        entries(site(file("/opt/a", **more)))


def test_packages_and_units():
    overlay = site(
        file("/etc/systemd/system/x.service", b"[Install]\nWantedBy=multi-user.target\n"),
        packages=("htop",),
        enable=("x.service",),
        mask=("apt-daily.timer",),
    )
    made = cluster(overlay)

    assert (
        recipe.wanted_packages(made, made.nodes[1].role, phony.debian())["htop"]
        == "component `overlays`"
    )
    assert "htop" not in recipe.wanted_packages(made, phony.HEAD, phony.debian())
    found = planned(overlay)
    wants = "/etc/systemd/system/multi-user.target.wants/x.service"
    assert found.delta.entries[wants] == Symlink("/etc/systemd/system/x.service")
    assert found.units["apt-daily.timer"] == "mask"


def test_a_template_for_each_node_is_stamped():
    overlay = site(
        file(MOTD, b"{{ node.name }} of {{ nodes | length }}\n", "template", per_node=True)
    )

    assert stamped(overlay).slots[MOTD] == b"node1 of 3\n"
    assert stamped(overlay, number=2).slots[MOTD] == b"node2 of 3\n"


def test_a_variant_with_overlays_knows_no_name_of_a_node():
    shipped = [Rack(ROOT).get(name).overlay for name in SHIPPED]
    first = cluster(*shipped)
    renamed = replace(first, nodes=tuple(replace(n, name=f"other-{n.number}") for n in first.nodes))

    role = first.nodes[1].role
    digests = {plan.plan_variant(c, role, phony.debian()).digest() for c in (first, renamed)}
    assert len(digests) == 1


def test_templates_see_no_secret():
    made = cluster()
    seen = json.dumps(overlays.node_context(made, made.nodes[0], {}))

    for secret in (phony.PSK, phony.HASH, "password", "psk", "ssh_keys"):
        assert secret not in seen


def test_two_claims_on_a_path_are_refused_and_both_are_named():
    with pytest.raises(ClashError) as caught:
        entries(site(file(MOTD, b"a")), site(file(MOTD, b"b"), name="other"))

    assert caught.value.message == f"`{MOTD}` is claimed by `overlay site` and by `overlay other`"
    assert "`replaces:`" in caught.value.hint
    assert caught.value.exit_code == ExitCode.BAD_CONFIG


def test_two_templates_for_each_node_are_two_claims_though_their_slots_are_equal():
    first = site(file(MOTD, b"{{ node.name }}", "template", per_node=True))
    words = b"{{ node.role }}"
    other = site(file(MOTD, words, "template", per_node=True), name="other")
    said = site(file(MOTD, words, "template", per_node=True), name="other", replaces=(MOTD,))

    with pytest.raises(ClashError, match="is claimed by `overlay site` and by `overlay other`"):
        entries(first, other)
    assert stamped(first, said).slots[MOTD].rstrip() == b"worker"
    assert stamped(first, replace(first, name="same")).slots[MOTD].rstrip() == b"node1"


def test_a_component_is_not_overwritten_unless_that_is_said():
    path = "/etc/ssh/sshd_config.d/10-piimage.conf"

    with pytest.raises(ClashError, match="is claimed by `ssh` and by `overlay site`"):
        entries(site(file(path)))
    assert entries(site(file(path), replaces=(path,)))[path] == File(b"x\n")


def test_the_last_one_that_replaces_has_the_path():
    first = site(file(MOTD, b"{{ node.name }}", "template", per_node=True))
    last = site(file(MOTD, b"last\n"), name="last", replaces=(MOTD,))

    assert entries(first, last)[MOTD] == File(b"last\n")
    assert MOTD not in stamped(first, last).slots


def test_the_same_file_in_two_overlays_is_no_clash():
    assert entries(site(file(MOTD)), site(file(MOTD), name="other"))[MOTD] == File(b"x\n")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/boot/firmware/cmdline.txt", "cmdline:"),
        ("/boot/firmware/config.txt", "config_txt:"),
        ("/etc/fstab", ".mount"),
        ("/etc/passwd", "users:"),
        ("/etc/shadow", "users:"),
        ("/etc/systemd/system-preset/10-piimage.preset", "overlay.yaml"),
        (slots.HOSTS, "makes a node that node"),
        (slots.HOST_KEY, "makes a node that node"),
        (slots.USER_DATA, "makes a node that node"),
    ],
)
@pytest.mark.parametrize("removed", [False, True])
def test_what_is_put_together_by_us_cannot_be_had(path, hint, removed):
    overlay = site(removes=(path,)) if removed else site(file(path))

    with pytest.raises(ClashError, match="put together by piimage") as caught:
        entries(replace(overlay, replaces=(path,)))
    assert hint in caught.value.hint


def test_a_directory_that_is_written_into_cannot_be_removed():
    with pytest.raises(ClashError, match=r"removes `/etc/ssh`, where `\w+` writes `/etc/ssh/"):
        entries(site(removes=("/etc/ssh",)))


@pytest.mark.parametrize(
    "entry",
    [
        file("/boot/firmware/x", b"{{ node.name }}", "template", per_node=True),
        file("/boot/firmware/x", kind="link", target="y"),
    ],
)
def test_the_firmwares_partition_has_neither_links_nor_slots(entry):
    with pytest.raises(ConfigError, match="firmware's partition"):
        entries(site(entry))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a\n{{ cluster.nosuch }}\n", 2, "no attribute 'nosuch'"),
        ("{{ cluster.users[9].name }}", 1, "no element 9"),
        ("a\nb\n{{ 1 / 0 }}", 3, "ZeroDivisionError"),
        ("{{ cluster.__class__ }}", 1, "unsafe"),
        ("{{ ''.__class__.__mro__ }}", 1, "unsafe"),
        ("{% do cluster.update({}) %}", None, ""),
        ("{{ cluster.update({'a': 1}) }}", 1, "unsafe"),
        ("{% for x in range(10000000) %}{% endfor %}", 1, "Range too big"),
        ("{% include 'other' %}", 1, ""),
        ("\xff", None, ""),
    ],
)
def test_a_template_that_fails_says_where(text, line, words):
    content = text.encode("latin-1")

    with pytest.raises(TemplateFailedError) as caught:
        render(content, {"cluster": {"users": []}})

    assert words in caught.value.message
    if line is not None:
        assert caught.value.line == line


def test_a_failing_template_is_named_with_its_line():
    with pytest.raises(ConfigError, match=r"`site/opt/t:2`: the template cannot be rendered"):
        entries(site(file("/opt/t", b"\n{{ cluster.nosuch }}", "template")))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_tests_of_an_overlay_that_ships(name):
    outcomes = run_tests(Rack(ROOT).get(name))

    assert outcomes
    assert [o for o in outcomes if o.wrong] == []


def test_enough_overlays_ship():
    assert {"motd", "debug"} <= set(SHIPPED)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory with a cluster.yaml and an overlay of its own."""
    (tmp_path / "cluster.yaml").write_text(
        "version: 1\nname: lab\nusers: [{name: ada, uid: 1000}]\nnetwork: {wired: {subnet: 10.1.10.0/24}}\n"
        "roles: {worker: {overlays: [hi]}}\nnodes: {count: 2}\n"
    )
    place = tmp_path / "overlays/hi"
    (place / "rootfs/etc").mkdir(parents=True)
    (place / "overlay.yaml").write_text(
        "description: says hi\nfiles:\n  /etc/hi: {per_node: true, mode: '0600', owner: ada}\npackages: [htop]\n"
    )
    (place / "rootfs/etc/hi.j2").write_text("hi {{ node.name }}\n")
    (place / "rootfs/etc/run").write_text("#!/bin/sh\n")
    (place / "rootfs/etc/run").chmod(0o755)
    (place / "rootfs/etc/to").symlink_to("hi")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def overlay(*words):
    return CliRunner().invoke(app, ["overlay", *words])


def test_list_has_those_beside_cluster_yaml_and_ours(home):
    lines = [line.split() for line in overlay("list").stdout.splitlines()]

    assert ["hi", "beside", "cluster.yaml", "3", "says", "hi"] in lines
    assert any(line[:2] == ["motd", "shipped"] for line in lines)
    found = json.loads(overlay("list", "--json").stdout)
    assert {each["name"] for each in found} == {"hi", *SHIPPED}


def test_show_has_files_and_what_templates_use(home):
    assert overlay("show", "hi").stdout.splitlines() == [
        f"hi  beside cluster.yaml, {Path('overlays/hi')}",
        "  says hi",
        "  packages  htop",
        "  /etc/hi   0600  ada  template for each node, uses node",
        "  /etc/run  0755  -    file",
        "  /etc/to   0777  -    link to hi",
    ]
    found = json.loads(overlay("show", "hi", "--json").stdout)
    assert found["files"][0]["uses"] == ["node"]


def test_show_on_a_node_has_the_content(home):
    found = json.loads(overlay("show", "hi", "--node", "1", "--json").stdout)

    assert found == {"/etc/hi": "hi node1\n", "/etc/run": "#!/bin/sh\n", "/etc/to": "-> hi\n"}
    assert "/etc/hi\nhi node1\n" in overlay("show", "hi", "--node", "1").stdout


def test_show_on_a_node_that_has_it_not(home):
    error = overlay("show", "hi", "--node", "0").exception

    assert isinstance(error, ConfigError)
    assert error.message == "`node0` does not have the overlay `hi`"


@pytest.mark.parametrize("command", ["show", "test"])
def test_an_overlay_that_is_not_there(home, command):
    error = overlay(command, "mtod").exception

    assert isinstance(error, ConfigError)
    assert (error.message, error.hint) == ("there is no overlay `mtod`", "did you mean `motd`?")


def test_an_overlay_without_tests(home):
    error = overlay("test", "hi").exception

    assert isinstance(error, ConfigError)
    assert "has no tests" in error.message
    assert "--update" in error.hint


def test_tests_of_an_overlay_are_written_pass_and_fail(home):
    place = home / "overlays/hi"
    case = place / "tests/one"
    case.mkdir(parents=True)
    (case / "cluster.yaml").write_text((home / "cluster.yaml").read_text())

    first = overlay("test", "hi")
    written = overlay("test", "hi", "--update")
    expected = {str(p.relative_to(case)): p.read_text() for p in case.rglob("*") if p.is_file()}
    del expected["cluster.yaml"]
    again = overlay("test", "hi")
    (place / "rootfs/etc/hi.j2").write_text("hello {{ node.name }}\n")
    (place / "rootfs/etc/run").rename(place / "rootfs/etc/ran")
    broken = overlay("test", "hi")

    assert (first.exit_code, "nothing is expected" in first.stdout) == (4, True)
    assert (written.exit_code, again.exit_code) == (0, 0)
    assert again.stdout == "one: as expected\n"
    assert expected == {
        "expected/node1/etc/hi": "hi node1\n",
        "expected/node1/etc/run": "#!/bin/sh\n",
        "expected/node1/etc/to": "-> hi\n",
    }
    assert broken.exit_code == 4
    for line in (
        "one: differs",
        "    -hi node1",
        "    +hello node1",
        "    node1: /etc/ran is written and not expected",
        "    node1: /etc/run is expected, not written",
    ):
        assert line in broken.stdout.splitlines()
    told = json.loads(overlay("test", "hi", "--json").stdout)
    assert told[0]["case"] == "one"


def test_validate_speaks_of_overlays_no_more(home):
    result = CliRunner().invoke(app, ["validate"])

    assert result.exit_code == 0
    assert result.stderr == ""


def test_what_is_no_file_is_told(home):
    (home / "overlays/hi/rootfs/etc/loop").symlink_to("loop")
    os.mkfifo(home / "overlays/hi/rootfs/etc/fifo")
    rack = Rack(home)

    loaded = rack.get("hi")

    assert {f.path: f.kind for f in loaded.overlay.files}["/etc/loop"] == "link"
    assert [f.message for f in rack.findings] == ["it is neither a file, a link nor a directory"]


def test_a_directory_is_an_entry_where_something_is_said_of_it(home):
    place = home / "overlays/hi"
    (place / "rootfs/var/drop").mkdir(parents=True)
    (place / "rootfs/var/drop/.gitkeep").touch()
    text = (
        (place / "overlay.yaml")
        .read_text()
        .replace("files:\n", "files:\n  /var/drop: {mode: '1777'}\n")
    )
    (place / "overlay.yaml").write_text(text)

    found = {f.path: f for f in Rack(home).get("hi").overlay.files}

    assert (found["/var/drop"].kind, found["/var/drop"].mode) == ("dir", 0o1777)
    assert "/var/drop/.gitkeep" not in found
    assert "/var" not in found
