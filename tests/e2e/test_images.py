"""Builds from the real base: another cluster than the sample, and an ordinary user."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from piimage.bases.store import Store
from piimage.disk import ext4, fat
from piimage.disk.slots import apply_patches
from piimage.disk.sparse import copy_sparse
from piimage.stamping import read_stamp

REPOSITORY = Path(__file__).parents[2]
PSK = "0123456789abcdef" * 4
HASH = "$6$saltsalt$" + "b" * 86
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f g"
OTHER = f"""\
version: 1
name: attic
base: debian-13
timezone: Asia/Kolkata
keymap: it
users:
  - {{name: ada, uid: 1815, gid: 1852, group: engines, sudo: password, password: {{hash: "{HASH}"}}}}
  - {{name: grace, uid: 1906, sudo: nopasswd, ssh_keys: ["{KEY}"]}}
  - {{name: annie, uid: 1922}}
network:
  wired: {{subnet: 192.168.77.64/26, first: 192.168.77.70}}
  wifi: {{ssid: "Café", country: "NO", psk: "{PSK}"}}
roles: {{head: {{}}, worker: {{wifi: false}}}}
nodes:
  - {{name: moon, role: head, cmdline: ["video=HDMI-A-1:1280x720@60"]}}
  - {{name: io, mac: "dc:a6:32:00:00:01"}}
  - {{name: titan, address: 192.168.77.100}}
  - {{name: triton}}
"""
ADDRESSES = {
    "moon": "192.168.77.70",
    "io": "192.168.77.71",
    "titan": "192.168.77.100",
    "triton": "192.168.77.73",
}


@pytest.fixture(scope="module")
def attic(tmp_path_factory, default_base, piimage):
    """The other cluster, built as variants and stamps; what the command said is kept."""
    source = tmp_path_factory.mktemp("attic") / "cluster.yaml"
    source.write_text(OTHER)
    done = piimage("--verbose", "build", source, "--all", "--json")
    assert done.returncode == 0
    (source.parent / "said").write_text(done.stdout + done.stderr)
    return source.parent


def read(attic, node, paths):
    """Files of a node: its variant with its stamp, as a card would hold them."""
    stamp = read_stamp(attic / f"dist/attic/stamps/{node}.stamp")
    role = "head" if node == "moon" else "worker"
    image = attic / f"{node}.img"
    copy_sparse(attic / f"dist/attic/variants/{role}.img", image)
    apply_patches(image, stamp.patches)
    facts = Store().base("debian-13").facts
    root, firmware = (facts.table.partition(facts.mounts[m]).start for m in ("/", facts.firmware))
    ext4.check(image, root)
    files = {p: c.decode().rstrip("\n") for p, c in ext4.read_files(image, root, paths).items()}
    files["cmdline.txt"] = fat.read_files(image, firmware, ["cmdline.txt"])["cmdline.txt"].decode()
    image.unlink()
    return files


def test_the_base_leaves_nothing_to_a_first_boot_that_can_be_made_once(default_base):
    base = Store().base(default_base)
    start = base.facts.table.partition(base.facts.mounts["/"]).start

    wanted = {
        "/etc/.updated", "/etc/ld.so.cache", "/etc/console-setup/cached_setup_keyboard.sh",
        "/var/lib/systemd/catalog/database",
    }  # fmt: skip

    assert set(ext4.read_files(base.path, start, sorted(wanted))) == wanted


@pytest.mark.parametrize("node", ADDRESSES)
def test_each_node_carries_exactly_its_own(attic, node):
    seed = "/var/lib/cloud/seed/nocloud"
    found = read(attic, node, [
        "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/shadow", f"{seed}/user-data", f"{seed}/network-config",
        f"{seed}/meta-data", "/etc/ssh/ssh_host_ed25519_key", "/etc/default/keyboard",
        "/etc/chrony/conf.d/10-piimage.conf",
        "/home/grace/.ssh/authorized_keys", "/home/ada/.ssh/authorized_keys",
    ])  # fmt: skip

    accounts = {line.split(":")[0]: line.split(":") for line in found["/etc/passwd"].splitlines()}
    assert [accounts[u][2:4] for u in ("ada", "grace", "annie")] == [
        ["1815", "1852"], ["1906", "1906"], ["1922", "1922"],
    ]  # fmt: skip
    assert "engines:x:1852:" in found["/etc/group"]
    for name, address in ADDRESSES.items():
        assert re.search(rf"^{re.escape(address)}\s+{name}$", found["/etc/hosts"], re.MULTILINE)
    network = yaml.safe_load(found[f"{seed}/network-config"])["network"]
    wired = {a for port in network["ethernets"].values() for a in port["addresses"]}
    assert wired == {f"{ADDRESSES[node]}/26"}
    assert ("wifis" in network) == (node == "moon")
    assert (PSK in found[f"{seed}/network-config"]) == (node == "moon")
    assert HASH in found[f"{seed}/user-data"]
    assert HASH not in found["/etc/shadow"]
    assert f"local-hostname: {node}\n" in found[f"{seed}/meta-data"] + "\n"
    key = (attic / f"cluster.state/hosts/{node}").read_text()
    assert found["/etc/ssh/ssh_host_ed25519_key"] == key.rstrip("\n")
    assert 'XKBLAYOUT="it"' in found["/etc/default/keyboard"]
    assert ("local stratum 10" in found["/etc/chrony/conf.d/10-piimage.conf"]) == (node == "moon")
    assert found["/home/grace/.ssh/authorized_keys"].endswith(" g")
    assert len(found["/home/ada/.ssh/authorized_keys"].splitlines()) == 1  # the cluster's key
    assert ("video=HDMI-A-1" in found["cmdline.txt"]) == (node == "moon")
    assert ("ieee80211_regdom=NO" in found["cmdline.txt"]) == (node == "moon")
    assert found["cmdline.txt"].strip().count("\n") == 0


def test_no_secret_leaves_slots_and_state(attic):
    """Neither in a variant nor in anything that was printed or listed."""
    secrets = [HASH.encode(), PSK.encode()]
    for path in (attic / "cluster.state").rglob("*"):
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes():
            secrets += [line for line in path.read_bytes().split(b"\n") if len(line) > 40][1:]
    public = [
        attic / "said",
        attic / "dist/attic/manifest.json",
        *(attic / "dist/attic/variants").iterdir(),
    ]

    assert len(secrets) >= 8
    for path in public:
        content = path.read_bytes()
        assert [s for s in secrets if s in content] == [], path
    stamp = (attic / "dist/attic/stamps/moon.stamp").read_bytes()
    assert HASH.encode() in stamp
    assert PSK.encode() in stamp


def test_an_ordinary_user_builds(tmp_path, sample, default_base, piimage):
    """Outside every group, in a cache of its own; as root the test becomes `nobody` for it.

    The packages are baked in already: `nobody` has no subordinate ids for a chroot.
    """
    home = tmp_path / "home"
    for name in (f"bases/{default_base}", *_baked(piimage, sample)):
        shutil.copytree(Store().root / name, home / "cache" / name, copy_function=_copy)
    for path in (sample, sample.with_suffix(".lock")):
        shutil.copy(path, home)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    command = f"exec {checkout}/.venv/bin/python -m piimage build {home}/cluster.yaml --node 3"
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", home], check=True)
        for parent in (tmp_path, *tmp_path.parents):
            parent.chmod(parent.stat().st_mode | 0o011)
        become = "exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all sh -c"
        script = f"mount --bind {REPOSITORY} {checkout} && {become} {command!r}"
        argv = ["unshare", "--mount", "sh", "-c", script]
    else:
        checkout.rmdir()
        checkout.symlink_to(REPOSITORY)
        argv = ["sh", "-c", command]
    env = {
        "PATH": "/usr/bin:/bin", "HOME": str(home), "PIIMAGE_CACHE": str(home / "cache"), "PYTHONPATH": str(checkout),
        "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip

    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, cwd="/")

    sys.stderr.write(done.stderr)
    assert done.returncode == 0
    image = home / "dist/pico5/node3.img"
    assert image.stat().st_mode & 0o777 == 0o600
    assert (home / "cluster.state").stat().st_mode & 0o777 == 0o700


def _baked(piimage, source):
    """The baked bases that a build of node 3 uses: the cache notes when each was of use."""
    began = time.time()
    assert piimage("build", source, "--node", "3").returncode == 0
    return [
        f"baked/{p.name}" for p in (Store().root / "baked").iterdir() if p.stat().st_mtime >= began
    ]


def _copy(source, target):
    copy_sparse(Path(source), Path(target))
    shutil.copystat(source, target)
