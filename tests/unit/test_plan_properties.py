"""Whatever cluster.yaml validates gives variants and stamps that the tools concerned accept."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import phony_facts as phony
import yaml
from hypothesis import HealthCheck, given, settings

from piimage.components import slots
from piimage.components.unit_text import unit_name
from piimage.delta import Directory, File
from piimage.plan import plan

sys.path.insert(0, str(Path(__file__).parents[1]))
import strategies

ZONES = frozenset(strategies.ZONES)
# Reading YAML is most of the time here, and other tests do it a hundred times.
slow = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def base():
    """A desktop base with NFS and all time zones, so that nothing that validates is beyond it."""
    facts = phony.with_nfs(phony.raspios())
    return replace(facts, timezones=ZONES | facts.timezones)


def planned(data):
    """The resolved cluster, a plan per role and a stamp per node."""
    cluster = strategies.load_data(data).cluster
    facts = base()
    users = {user.name: phony.HASH for user in cluster.users if user.password}
    secrets = phony.secrets(cluster, passwords=users, authorized_keys={})
    variants = {role: plan.plan_variant(cluster, role, facts) for role in cluster.roles}
    stamps = [
        plan.plan_stamp(cluster, node, facts, variants[node.role], "f" * 64, secrets)
        for node in cluster.nodes
    ]
    return cluster, variants, stamps


def takes_uid_of_pi(data):
    """Users that collide with the base's own are refused, rightly; not the subject here."""
    return any(user["uid"] == 1000 for user in data["users"])


valid = strategies.clusters(shared=True).filter(lambda data: not takes_uid_of_pi(data))


@slow
@given(valid)
def test_every_stamp_fills_its_slots_and_reads_back(data):
    cluster, variants, stamps = planned(data)

    assert len({stamp.instance_id for stamp in stamps}) == len(cluster.nodes)
    for node, stamp in zip(cluster.nodes, stamps, strict=True):
        assert set(stamp.slots) == set(variants[node.role].slots)
        meta = yaml.safe_load(stamp.slots[slots.META_DATA])
        assert meta == {"instance-id": stamp.instance_id, "local-hostname": node.name}
        network = yaml.safe_load(stamp.slots[slots.NETWORK])["network"]
        wired = list(network["ethernets"].values())
        assert {str(a) for port in wired for a in port["addresses"]} == {str(node.address)}
        assert ("wifis" in network) == (cluster.wifi is not None and node.role.wifi)
        ways = {route["via"] for port in wired for route in port.get("routes", ())}
        assert ways == ({str(cluster.gateway)} if cluster.gateway else set())


@slow
@given(valid)
def test_every_variant_has_sound_databases_and_one_line_of_tokens(data):
    cluster, variants, _ = planned(data)

    for variant in variants.values():
        entries = variant.delta.entries
        passwd = entries["/etc/passwd"].content.decode(errors="surrogateescape")
        rows = [line.split(":") for line in passwd.removesuffix("\n").split("\n")]
        assert all(len(row) == 7 for row in rows)
        numbers = {row[0]: (int(row[2]), int(row[3])) for row in rows}
        assert all(numbers[user.name] == (user.uid, user.gid) for user in cluster.users)
        assert len({row[2] for row in rows}) == len(rows)
        line = entries.get("/boot/firmware/cmdline.txt", File(phony.CMDLINE.encode()))
        assert line.content.count(b"\n") == 1
        assert b"root=LABEL=RASPIROOT" in line.content


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=valid)
def test_visudo_accepts_what_every_cluster_gives(data, tmp_path_factory):
    file = tmp_path_factory.mktemp("sudoers") / "sudoers"
    _, variants, _ = planned(data)
    texts = [
        entry.content
        for variant in variants.values()
        for path, entry in variant.delta
        if path.startswith("/etc/sudoers.d/") and isinstance(entry, File)
    ]
    file.write_bytes(b"".join(texts) or b"root ALL=(ALL:ALL) ALL\n")
    file.chmod(0o440)

    done = subprocess.run(["visudo", "-c", "-f", file], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@slow
@given(valid)
def test_every_share_is_exported_once_and_mounted_by_all_others(data):
    cluster, variants, _ = planned(data)

    for share in cluster.shares:
        mount = f"/etc/systemd/system/{unit_name(share.path, '.mount')}"
        for node in cluster.nodes:
            delta = variants[node.role].delta.entries
            exports = delta.get("/etc/exports.d/piimage.exports")
            exported = exports is not None and f"{share.path} ".encode() in exports.content
            assert exported is (node.name == share.server)
            assert (mount in delta) is (node.name != share.server)
            assert isinstance(delta[share.path], Directory)
