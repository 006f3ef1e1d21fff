"""The seed against the base's own cloud-init: what any valid cluster.yaml becomes must pass its schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from strategies import clusters, load_data

from piimage.bases.store import Store
from piimage.components import slots
from piimage.components.contribution import HostKey, Secrets
from piimage.disk import ext4
from piimage.errors import UnsupportedError
from piimage.plan.plan import plan_stamp, plan_variant

if TYPE_CHECKING:
    from piimage.bases.record import Base
    from piimage.cluster import Cluster
    from piimage.facts import Facts

PACKAGES = "/usr/lib/python3/dist-packages"
#: Reads {"user-data": [texts], "network-config": [texts]} and prints what the schema says to each.
CHECK = """
import json, logging, sys, yaml
logging.disable(logging.CRITICAL)
sys.path.append(sys.argv[1])  # what cloud-init imports and we do not have: the base's own, behind ours
from cloudinit.config import schema
from cloudinit.net import netplan
netplan.available = lambda *_, **__: False  # ask the schema: this machine's netplan is asked elsewhere
schema.netplan_validate_network_schema = lambda **_: False
kinds = {"user-data": schema.SchemaType.CLOUD_CONFIG, "network-config": schema.SchemaType.NETWORK_CONFIG}
said = []
for kind, texts in json.load(sys.stdin).items():
    for text in texts:
        data = yaml.safe_load(text)
        # The schema knows no radios: where netplan is, as in the base, netplan judges those, and so it does in
        # tests/unit/test_components_network.py.
        (data.get("network") or {}).pop("wifis", None)
        try:
            schema.validate_cloudconfig_schema(
                data, schema=schema.get_schema(kinds[kind]), schema_type=kinds[kind], strict=True
            )
        except schema.SchemaValidationError as error:
            said.append(f"{kind}: {error}\\n{text}")
print(json.dumps(said))
"""


@pytest.fixture(scope="session")
def base() -> Base:
    subprocess.run([sys.executable, "-m", "piimage", "base", "make", "debian-13"], check=True)
    return Store().base("debian-13")


@pytest.fixture(scope="session")
def cloud_init(base: Base, tmp_path_factory):
    """The base's own cloud-init, as a function from texts to complaints."""
    home = tmp_path_factory.mktemp("cloudinit")
    root = base.facts.table.partition(base.facts.mounts["/"]).start
    tree = ext4.list_tree(base.path, root, [PACKAGES])
    wanted = [
        path
        for path, fact in tree.items()
        if fact.kind == "file" and path.endswith((".py", ".json"))
    ]
    for path, content in ext4.read_files(base.path, root, wanted).items():
        name = path.removeprefix(f"{PACKAGES}/")
        target = home / ("own" if name.startswith("cloudinit/") else "others") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def check(texts: dict[str, list[str]]) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", CHECK, home / "others"],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(home / "own"), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return check


def seeds(cluster: Cluster, facts: Facts) -> dict[str, list[str]]:
    """The user-data and network-config of every node."""
    secrets = Secrets(
        host_keys={
            n.name: HostKey(private=b"k", public="p", certificate="c") for n in cluster.nodes
        },
        ca_public="ssh-ed25519 AAAA ca",
        cluster_public="ssh-ed25519 AAAA id",
        cluster_private=b"k",
        passwords={user.name: "$6$salt$hash" for user in cluster.users} | {"root": "$6$salt$hash"},
        psk="0" * 64 if cluster.wifi else None,
        authorized_keys={user.name: () for user in cluster.users},
    )
    texts = {"user-data": [], "network-config": []}
    for node in cluster.nodes[:3]:
        variant = plan_variant(cluster, node.role, facts)
        stamp = plan_stamp(cluster, node, facts, variant, "0" * 64, secrets)
        for path in (slots.USER_DATA, slots.NETWORK):
            texts[Path(path).name].append(stamp.slots[path].decode())
    return texts


def test_the_schema_refuses_what_is_wrong(cloud_init):
    wrong = {
        "user-data": ["#cloud-config\nhostname: [1]\n"],
        "network-config": ["version: 2\nethernets: {eth0: {dhcp4: [1]}}\n"],
    }

    assert len(cloud_init(wrong)) == 2


@pytest.mark.parametrize("more", [{}, {"domain": "lab.internal", "locale": "it_IT.UTF-8"}])
def test_the_sample_passes_the_schema(base: Base, cloud_init, more):
    sample = Path(__file__).parents[2] / "cluster.yaml"
    # Neither is in a seed, and both want packages that are not in this base.
    without = {"shares": [], "mpi": None}
    cluster = load_data(yaml.safe_load(sample.read_text()) | without | more).cluster

    assert cloud_init(seeds(cluster, base.facts)) == []


def test_every_valid_cluster_passes_the_schema(base: Base, cloud_init):
    gathered = {"user-data": [], "network-config": []}

    @settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(clusters())
    def gather(data):
        try:
            found = seeds(load_data(data).cluster, base.facts)
        except UnsupportedError:  # a desktop, a locale or a group that this base does not have
            assume(condition=False)
        for kind, texts in found.items():
            gathered[kind] += texts

    gather()

    assert len(gathered["user-data"]) >= 60
    assert cloud_init(gathered) == []
