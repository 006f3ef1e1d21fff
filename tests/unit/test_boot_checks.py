"""Verdicts: a node that kept every promise (facts recorded from one), and one broken promise at a time."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from piimage.boot.checks import judge
from piimage.boot.report import Rehearsal
from piimage.boot.wiring import wire
from piimage.cluster import SecretRef, Sudo
from piimage.components.contribution import Check
from piimage.errors import ExitCode, RehearsalError
from piimage.resolve import load

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "boot_node3.json").read_text())
CLUSTER = load(HERE.parents[1] / "cluster.yaml", env={}).cluster
NODE = CLUSTER.node("3")
WIRE = wire(CLUSTER, NODE, 2222)
ASKED = (
    Check(name="host name", argv=("hostname",), expect="^node3$"),
    Check(name="sudo of ops", argv=("sudo", "-n", "id", "-u"), expect="^0$", user="ops"),
)


def verdict(facts, *, cluster=CLUSTER, node=NODE, baked="uninitialized", asked=ASKED):
    found = judge(facts, cluster, node, wire=WIRE, baked_machine_id=baked, asked=asked)
    return {finding.name: finding for finding in found}


def changed(*path, to):
    facts = copy.deepcopy(RECORDED)
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to(place[path[-1]]) if callable(to) else to
    return facts


def interface(mac, **more):
    def change(links):
        return [{**link, **more} if link["address"] == mac else link for link in links]

    return change


def leak(_found):
    return [{"path": "/var/log/x", "what": "Wi-Fi key"}]


def test_a_node_that_kept_its_promises_passes():
    found = verdict(RECORDED)

    assert [finding for finding in found.values() if finding.ok is not True] == []
    assert len(found) > 35
    assert {"plan: host name", "plan: sudo of ops"} <= set(found)


OTHER = interface(
    WIRE.other_mac, addr_info=[{"family": "inet6", "local": "fe80::2", "prefixlen": 64}]
)
LEASE = interface(
    WIRE.other_mac, addr_info=[{"family": "inet", "local": "10.0.2.15", "prefixlen": 24}]
)
GREEDY = interface(WIRE.mac, addr_info=[{"family": "inet", "local": "10.1.10.243", "prefixlen": 8}])
DEFAULT = [{"dst": "default", "gateway": "10.1.10.1", "dev": "eth0", "flags": []}]
BROKEN = [
    ("cloud-init", ("cloud_init", "status"), "error", "error"),
    ("cloud-init", ("cloud_init", "errors"), ["no datasource"], "no datasource"),
    ("cloud-init", ("cloud_init", "recoverable_errors"), {"ERROR": ["bad key"]}, "error: bad key"),
    ("host name", ("host", "name"), "localhost", "localhost"),
    ("qualified host name", ("host", "fqdn"), "node3.lan", "node3.lan"),
    ("/etc/hosts", ("host", "hosts_sha256"), "0", "0"),
    ("machine id", ("host", "machine_id"), "uninitialized", "uninitialized"),
    ("machine id", ("host", "machine_id"), "", "none"),
    ("locale", ("host", "locale"), None, "no answer"),
    ("user ops", ("users", "ops"), None, "no such user"),
    ("user ops", ("users", "ops", "uid"), 1002, "uid 1002, gid 1001 (ops), /home/ops, /bin/bash"),
    ("home of ops", ("users", "ops", "home_owner"), [0, 0], "0, 0"),
    ("sudo of ops", ("root", "sudo", "ops"), False, "not root without a password"),
    ("password of root", ("root", "passwords", "root"), "set", "set"),
    ("password of ops", ("root", "passwords", "ops"), "empty", "empty"),
    ("ssh", ("login",), "ops", "login as ops"),
    ("wired address", ("addresses",), [], f"no interface has {WIRE.mac}"),
    ("wired address", ("addresses",), GREEDY, "10.1.10.243/8"),
    ("routes on the wire", ("routes",), lambda r: r + DEFAULT, "10.1.10.0/24, default via 10.1.10.1"),
    ("IPv6 default route on the wire", ("routes6",), [{"dev": "eth0", "gateway": "fe80::2"}], "fe80::2"),
    ("second NIC", ("addresses",), OTHER, "fe80::2/64"),
    ("second NIC", ("addresses",), interface(WIRE.other_mac, flags=["BROADCAST", "UP"]), "up"),
    ("second NIC", ("routes",), lambda r: [*r, {"dst": "ff00::/8", "dev": "eth1"}], "route ff00::/8"),
    ("second NIC", ("addresses",), LEASE, "10.0.2.15/24"),
    ("second NIC", ("routes",), lambda r: [*r, {"dst": "10.0.0.0/8", "dev": "eth1"}], "route 10.0.0.0/8"),
    ("time zone", ("clock", "zone"), "/usr/share/zoneinfo/Etc/UTC", "Etc/UTC"),
    ("clock", ("clock", "now"), lambda now: now - 3600, "s off"),
    ("clock", ("clock", "now"), 0, "s off"),
    ("chrony answers", ("clock", "tracking"), None, "no"),
    ("time source", ("clock", "sources"), ["10.1.10.1"], "10.1.10.1"),
    ("target", ("system", "target"), "graphical.target", "graphical.target"),
    ("failed units", ("system", "failed"), ["a.service"], "a.service"),
    ("system state", ("system", "state"), "degraded", "degraded"),
    ("root file system grown", ("filesystem",), None, "no answer"),
    ("root file system grown", ("filesystem", "partition_end"), 1600 << 20, "partition ends at 1600 MiB"),
    ("root file system grown", ("filesystem", "size"), 1000 << 20, "file system has 1000 MiB"),
    ("padding of stamped files", ("root", "padded"), ["/etc/hosts"], "/etc/hosts"),
    ("secrets looked for", ("secrets", "looked_for"), [], "none"),
    ("private files that nobody can read", ("secrets", "nobody", "readable"), ["/etc/shadow"], "/etc/shadow"),
    ("secrets that nobody can read", ("secrets", "nobody", "found"), leak, "Wi-Fi key in /var/log/x"),
    ("secrets that federico can read", ("secrets", "login", "found"), leak, "Wi-Fi key in /var/log/x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "to", "words"), BROKEN)
def test_each_broken_promise_is_named(name, path, to, words):
    found = verdict(changed(*path, to=to))

    assert found[name].ok is False
    assert words in found[name].found


def test_networkmanager_may_switch_a_second_nic_on_when_it_takes_nothing():
    facts = changed("addresses", to=interface(WIRE.other_mac, flags=["BROADCAST", "UP"]))
    multicast = {"dst": "ff00::/8", "dev": "eth1", "table": "local", "type": "multicast"}
    facts["routes"] = [*facts["routes"], multicast]
    facts["networkmanager"] = True

    assert verdict(facts)["second NIC"].ok is True


def test_warnings_of_cloud_init_are_listed_and_pass():
    found = verdict(changed("cloud_init", "recoverable_errors", to={"WARNING": ["old key"]}))

    assert found["cloud-init"].ok is True
    assert "warning: old key" in found["cloud-init"].found


def test_a_baked_machine_id_is_not_the_nodes_own():
    assert verdict(RECORDED, baked=RECORDED["host"]["machine_id"])["machine id"].ok is False


def test_what_needs_the_other_nodes_is_not_asked_of_one_alone():
    asked = (Check(name="share", argv=("ls", "/srv"), expect="x", needs_cluster=True),)

    alone = verdict(RECORDED, asked=asked)["plan: share"]
    answer = {"name": "share", "status": 124, "stdout": "", "stderr": "no end within 120 s"}
    together = verdict(changed("checks", to=[answer]), asked=asked)["plan: share"]

    assert (alone.ok, alone.found) == (None, "not asked: needs the other nodes")
    assert together.ok is False


def test_without_sudo_it_is_said_what_was_not_asked():
    facts = changed("root", to=None)
    facts["secrets"] = None
    users = tuple(replace(user, sudo=Sudo.NONE) for user in CLUSTER.users)

    found = verdict(facts, cluster=replace(CLUSTER, users=users))

    assert found["sudo of federico"].ok is True
    assert found["sudo of ops"].ok is None
    assert found["secrets"].ok is None
    assert "no passwordless sudo" in found["password of root"].found


def test_a_first_user_who_should_have_sudo_and_has_not_fails():
    facts = changed("root", to=None)
    facts["secrets"] = None

    assert verdict(facts)["sudo of federico"].ok is False


def test_a_password_of_cluster_yaml_must_be_set():
    cluster = replace(CLUSTER, root_password=SecretRef("hash", "$y$x"))

    assert verdict(RECORDED, cluster=cluster)["password of root"].ok is False


def test_the_head_serves_time():
    head = replace(NODE, role=CLUSTER.head.role)

    assert verdict(RECORDED, node=head)["serves time"].ok is False
    assert verdict(changed("clock", "serves", to=True), node=head)["serves time"].ok is True


def test_a_gateway_on_the_wire_is_expected_when_it_is_asked_for():
    cluster = replace(CLUSTER, gateway=IPv4Address("10.1.10.1"))

    assert verdict(RECORDED, cluster=cluster)["routes on the wire"].ok is False
    facts = changed("routes", to=lambda routes: routes + DEFAULT)
    assert verdict(facts, cluster=cluster)["routes on the wire"].ok is True


def test_kernel_tokens_of_the_node_are_looked_for():
    node = replace(NODE, cmdline=("isolcpus=3",))

    assert verdict(RECORDED, node=node)["kernel tokens that are missing"].found == "isolcpus=3"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stdout": "1\n"}, "1"),
        (
            {"status": 1, "stdout": "", "stderr": "sudo: a password is required"},
            "status 1: sudo: a",
        ),
    ],
)
def test_a_check_of_the_plan_needs_status_and_words(change, words):
    facts = changed("checks", to=lambda checks: [{**c, **change} for c in checks])

    found = verdict(facts)["plan: sudo of ops"]
    assert found.ok is False
    assert words in found.found


def test_a_check_that_was_not_answered_fails():
    assert verdict(changed("checks", to=[]))["plan: host name"].ok is False


def record(tmp_path, **more):
    return Rehearsal(
        cluster="pico5", node="node3", build="b", machine="virt", accel="tcg", artifact=tmp_path / "node3.img",
        disk_size=1, cmdline="a b", additions=("b",), console=tmp_path / "console.log", **more,
    )  # fmt: skip


def test_the_report_says_all_and_the_error_says_what_failed(tmp_path):
    found = list(verdict(changed("host", "name", to="localhost")).values())
    made = record(tmp_path, findings=found, timings={"login": 60.0}, facts={"version": 1})

    made.write(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())

    assert written["ok"] is False
    assert written["additions"] == ["b"]
    assert written["timings"] == {"login": 60.0}
    assert "the board's firmware" in written["not_rehearsed"][0]
    assert {"name": "host name", "ok": False, "expected": "node3", "found": "localhost"} in written[
        "findings"
    ]
    with pytest.raises(RehearsalError) as caught:
        made.check(tmp_path / "report.json")
    assert caught.value.exit_code is ExitCode.REHEARSAL_FAILED
    assert "1 of" in caught.value.message
    assert "host name: expected node3; found localhost" in caught.value.message
    assert "console.log" in caught.value.hint


def test_a_rehearsal_that_ended_early_is_not_ok(tmp_path):
    made = record(tmp_path, error="no login prompt came")

    assert not made.ok
    with pytest.raises(RehearsalError, match="no login prompt came"):
        made.check(tmp_path / "report.json")


def test_what_could_not_be_asked_does_not_fail(tmp_path):
    found = [f for f in verdict(RECORDED).values() if f.ok]
    record(tmp_path, findings=[*found, replace(found[0], ok=None)]).check(tmp_path)


def test_on_the_head_the_clusters_key_is_looked_for_too():
    """Only there, and with `trust: mesh` everywhere, is it."""
    head = CLUSTER.head
    found = verdict(RECORDED, node=head)["secrets looked for"]
    assert (found.ok, found.expected) == (False, "private host key, private cluster key")

    labels = ["private cluster key", "private host key"]
    facts = changed("secrets", "looked_for", to=labels)
    assert verdict(facts, node=head)["secrets looked for"].ok is True
    mesh = replace(CLUSTER, ssh=replace(CLUSTER.ssh, trust="mesh"))
    assert verdict(RECORDED, cluster=mesh)["secrets looked for"].ok is False
