"""Trust between nodes: who holds the cluster's key, and for which hosts ssh offers it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import phony_facts as phony
import pytest

from piimage.cluster import Ssh
from piimage.components import slots, trust
from piimage.delta import Slot
from piimage.plan import plan

MESH = Ssh(trust="mesh")
KEY = "/home/federico/.ssh/id_cluster"


def image(role, **more):
    facts = more.pop("facts", None) or phony.debian()
    return trust.image(phony.cluster(**more), role, facts)


def stamp(number, **more):
    cluster = phony.cluster(**more)
    node = cluster.nodes[number]
    return trust.stamp(cluster, node, phony.debian(), phony.secrets(cluster))


def test_the_head_holds_the_key_and_nobody_else_may_read_it():
    entries = image(phony.HEAD).delta.entries

    assert entries[KEY] == Slot(4096, mode=0o600, uid=1000, gid=1000)
    assert entries[f"{KEY}.pub"] == Slot(4096, mode=0o644, uid=1000, gid=1000)
    assert entries[slots.SSH_CONFIG] == Slot(16384, mode=0o644)
    assert not [path for path in entries if path.startswith("/root")]


@pytest.mark.parametrize(("ssh", "held"), [(Ssh(), False), (MESH, True)])
def test_a_worker_holds_it_in_a_mesh_alone(ssh, held):
    assert (KEY in image(phony.WORKER, ssh=ssh).delta.entries) is held
    assert (KEY in stamp(1, ssh=ssh).slots) is held


def test_what_is_stamped():
    filled = stamp(0, domain="lab").slots

    assert filled[KEY] == b"cluster private"
    assert filled[f"{KEY}.pub"] == b"ssh-ed25519 AAAAC3cluster pico5\n"
    assert filled[slots.SSH_CONFIG].decode() == (
        "Host node0 node0.lab 10.1.10.240 node1 node1.lab 10.1.10.241"
        " node2 node2.lab 10.1.10.242\n"
        "    IdentityFile ~/.ssh/id_cluster\n"
        "    IdentityFile ~/.ssh/id_ed25519\n"
        "    IdentityFile ~/.ssh/id_ecdsa\n"
        "    IdentityFile ~/.ssh/id_rsa\n"
    )


def test_every_slot_is_filled_in_star_and_mesh():
    for ssh in (Ssh(), MESH):
        cluster = phony.cluster(ssh=ssh)
        secrets = phony.secrets(cluster)
        for node in cluster.nodes:
            variant = plan.plan_variant(cluster, node.role, phony.debian())
            stamped = plan.plan_stamp(cluster, node, phony.debian(), variant, "v", secrets)
            assert set(stamped.slots) == set(variant.slots)


def test_a_client_that_would_not_read_the_settings_is_told_to():
    facts = phony.with_files(phony.debian(), {"/etc/ssh/ssh_config": phony.text("Host *\n")})

    told = image(phony.HEAD, facts=facts).delta.entries["/etc/ssh/ssh_config"]

    assert told.content == b"Include /etc/ssh/ssh_config.d/*.conf\n\nHost *\n"
    assert "/etc/ssh/ssh_config" not in image(phony.HEAD).delta.entries
    assert image(phony.WORKER, facts=facts).delta.entries == {}


def effective(tmp_path, cluster, host):
    """What ssh itself makes of the settings for `host`."""
    path = tmp_path / "config"
    path.write_text(trust.config_text(cluster) + "\n" * 5000)
    argv = ["ssh", "-G", "-F", path, host]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return [line.partition(" ")[2] for line in said.splitlines() if line.startswith("identityfile")]


@pytest.mark.parametrize("count", [3, 900])
def test_ssh_offers_the_key_to_the_clusters_hosts_first_and_to_no_other(tmp_path, count):
    cluster = phony.cluster(count=count, domain="lab")

    for name in ("node0", "node2.lab", str(cluster.addresses["node1"])):
        assert effective(tmp_path, cluster, name)[0] == "~/.ssh/id_cluster"
    for name in ("example.org", "node", f"node{count}", "10.200.1.1", "xnode0"):
        assert "~/.ssh/id_cluster" not in effective(tmp_path, cluster, name)


def test_nothing_is_made_lax(tmp_path):
    text = trust.config_text(phony.cluster())

    assert not re.search(r"StrictHostKeyChecking|UserKnownHosts|ForwardAgent|BatchMode", text)
    assert len(text.encode()) <= slots.ssh_config(phony.cluster()).size


def test_the_settings_of_a_thousand_nodes_fit():
    cluster = phony.cluster(count=1000, domain="a-rather-long-domain.example")

    assert len(trust.config_text(cluster).encode()) <= slots.ssh_config(cluster).size


def test_whoever_holds_the_key_is_asked_to_reach_all():
    def asked(number):
        checks = stamp(number, ssh=MESH).checks
        return {check.argv[-2]: check.needs_cluster for check in checks if check.argv[0] == "ssh"}

    assert asked(0) == {"node0": False, "node1": True, "node2": True}
    assert asked(2) == {"node0": True, "node1": True, "node2": False}
    assert stamp(1).checks == ()


def test_the_key_check_compares_with_the_public_half():
    cluster = phony.cluster()
    secrets = replace(phony.secrets(cluster), cluster_public="ssh-ed25519 AAA+/b pico5 cluster key")
    check = trust.stamp(cluster, cluster.nodes[0], phony.debian(), secrets).checks[0]

    assert re.search(check.expect, "ssh-ed25519 AAA+/b pico5\n")
    assert not re.search(check.expect, "ssh-ed25519 AAAAb pico5\n")
    assert check.user == "federico"
