from __future__ import annotations

import json
from dataclasses import replace

import phony_facts as phony
import pytest
import yaml

from piimage.components import slots
from piimage.delta import Slot
from piimage.errors import PiimageError
from piimage.plan import plan

VARIANT_ID = "f" * 64


def variant(cluster=None, facts=None, *, head=True):
    cluster = cluster or phony.cluster()
    role = cluster.nodes[0 if head else 1].role
    return plan.plan_variant(cluster, role, facts or phony.debian())


def stamp(number=1, cluster=None, facts=None, secrets=None):
    cluster = cluster or phony.cluster()
    facts = facts or phony.debian()
    node = cluster.nodes[number]
    return plan.plan_stamp(
        cluster,
        node,
        facts,
        plan.plan_variant(cluster, node.role, facts),
        VARIANT_ID,
        secrets or phony.secrets(cluster),
    )


@pytest.mark.parametrize("base", [phony.debian, phony.raspios])
def test_a_stamp_fills_every_slot_within_its_size(base):
    facts = base()
    planned = variant(facts=facts, head=False)

    stamped = stamp(facts=facts)

    assert set(stamped.slots) == set(planned.slots)
    assert all(len(stamped.slots[p]) <= s.size for p, s in planned.slots.items())
    assert all(s.size % 4096 == 0 for s in planned.slots.values())


def test_variant_knows_no_name_of_a_node():
    cluster = phony.cluster()
    renamed = replace(
        cluster, nodes=tuple(replace(n, name=f"other-{n.number}") for n in cluster.nodes)
    )

    for head in (True, False):
        assert variant(cluster, head=head).digest() == variant(renamed, head=head).digest()


def test_variant_is_the_same_for_equal_inputs_and_differs_by_role():
    assert variant().digest() == variant().digest()
    assert variant().digest() != variant(head=False).digest()


def test_variant_holds_no_secret():
    cluster = phony.cluster()
    secrets = phony.secrets(cluster)
    hidden = [phony.PSK, phony.HASH, "AAAAC3", "AAAAcert", "PRIVATE KEY"]

    for path, entry in variant(cluster).delta:
        content = getattr(entry, "content", b"").decode()
        assert not [secret for secret in hidden if secret in content], path
    assert phony.PSK not in repr(stamp(0, cluster, secrets=secrets))
    assert phony.HASH not in repr(stamp(0, cluster, secrets=secrets))


def test_secrets_lie_only_in_slots_that_root_alone_reads():
    planned = variant()
    stamped = stamp(0)
    hidden = [phony.PSK.encode(), phony.HASH.encode(), b"PRIVATE KEY"]

    found = {path for path, content in stamped.slots.items() if any(h in content for h in hidden)}

    assert found == {slots.USER_DATA, slots.NETWORK, slots.HOST_KEY}
    assert {(planned.slots[p].mode, planned.slots[p].uid) for p in found} == {(0o600, 0)}
    assert not any(h in content for content in stamped.firmware.values() for h in hidden)


def test_instance_id_changes_with_content_and_only_with_it():
    cluster = phony.cluster()
    first = stamp(1, cluster).instance_id

    assert first == stamp(1, cluster).instance_id
    assert first != stamp(2, cluster).instance_id
    changed = phony.secrets(cluster, passwords={"federico": phony.HASH + "x"})
    assert first != stamp(1, cluster, secrets=changed).instance_id
    assert first.startswith("piimage-pico5-node1-")
    assert yaml.safe_load(stamp(1, cluster).slots[slots.META_DATA])["instance-id"] == first


def test_label_on_the_fat_names_the_node():
    stamped = stamp(2)

    assert set(stamped.firmware) == {"piimage.json"}
    label = json.loads(stamped.firmware["piimage.json"])
    assert (label["cluster"], label["node"], label["number"]) == ("pico5", "node2", 2)
    assert stamped.instance_id.endswith(label["build"])


def test_a_nodes_own_tokens_reach_the_fat_and_the_hook():
    cluster = phony.cluster()
    nodes = list(cluster.nodes)
    nodes[1] = replace(nodes[1], cmdline=("isolcpus=3", "cma=128M"))
    cluster = replace(cluster, nodes=tuple(nodes))

    stamped = stamp(1, cluster)

    line = stamped.firmware["cmdline.txt"].decode()
    assert line.count("\n") == 1
    assert line.endswith(" rootwait isolcpus=3 cma=128M\n")
    assert "cma=64M" not in line
    assert stamped.slots["/etc/default/raspi-extra-cmdline"] == b"isolcpus=3 cma=128M\n"


def test_more_keys_than_a_slot_holds_are_refused():
    cluster = phony.cluster()
    many = tuple(f"ssh-ed25519 {'A' * 68} key{n}" for n in range(300))

    with pytest.raises(PiimageError, match=r"authorized_keys` needs .* its slot has 16384"):
        stamp(0, cluster, secrets=phony.secrets(cluster, authorized_keys={"federico": many}))


def test_every_new_folder_is_in_the_delta():
    facts = phony.debian()
    delta = variant(facts=facts).delta

    for path, entry in delta:
        if type(entry).__name__ == "Absent":
            continue
        parent = path.rpartition("/")[0]
        assert not parent or facts.has(parent) or parent in delta.entries, path


def test_hundreds_of_nodes_grow_the_slots():
    small, large = variant(), variant(phony.cluster(count=400))

    assert small.slots[slots.KNOWN_HOSTS] == Slot(65536, mode=0o644)
    assert large.slots[slots.KNOWN_HOSTS].size > 65536
    assert stamp(7, phony.cluster(count=400)).slots[slots.NODES].count(b"\n") == 400
