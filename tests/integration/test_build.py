"""A whole build of 64 nodes over a phony base: two launches, no secret in a variant, nothing half-made."""

from __future__ import annotations

import json
import os
import resource
import signal
import time

import pytest
from factory import (
    NODES,
    SEED,
    SLOT_CERT,
    SLOT_KEY,
    Factory,
    factory_at,
    files,
    found_in,
    secrets_of,
    squeezed,
)
from phony import ROOT_START
from readback import check, content, fat_content, stats, tool
from trees import tree

from piimage.disk.slots import apply_patches
from piimage.disk.sparse import copy_sparse
from piimage.stamping import read_stamp


def test_killed_while_the_appliance_starts_nothing_has_a_name(built):
    assert built.after_kill == []
    assert list((built.factory.cache / "scratch").iterdir()) == []


def test_one_launch_per_variant(built):
    crashes = built.told.count("KVM does not work")

    assert built.launched == 2 + crashes
    assert {p.name for p in (built.factory.dist / "variants").iterdir()} == {
        f"{role}.{kind}" for role in ("head", "worker") for kind in ("img", "bmap", "sha256")
    }


def test_every_node_has_a_small_private_stamp(built):
    stamps = sorted((built.factory.dist / "stamps").iterdir())

    assert [p.name for p in stamps] == [f"node{n:02}.stamp" for n in range(NODES)]
    assert all(p.stat().st_size < 1 << 20 for p in stamps)
    assert {p.stat().st_mode & 0o777 for p in stamps} == {0o600}
    assert built.factory.dist.stat().st_mode & 0o777 == 0o700


def test_the_manifest_says_what_is_there(built):
    manifest = built.factory.manifest()
    nodes = manifest["nodes"]

    assert manifest["cluster"] == "abacus"
    assert len(nodes) == NODES
    assert {n["variant"] for n in nodes.values()} == {
        v["id"] for v in manifest["variants"].values()
    }
    assert {n: v["role"] for n, v in manifest["variants"].items()} == {
        "head": "head",
        "worker": "worker",
    }
    assert len({n["instance_id"] for n in nodes.values()}) == NODES
    assert len({n["stamp"] for n in nodes.values()}) == NODES
    assert nodes["node63"]["address"] == "10.9.1.64/16"
    base = manifest["bases"]["phony"]
    assert all(n["base"] == base["id"] for n in nodes.values())
    assert base["packages"]["cloud-init"] == "25.1.4-1"
    tool(
        "sh", "-c", 'cd "$0" && sha256sum --strict -c -- *.sha256', built.factory.dist / "variants"
    )


def test_the_second_run_is_quick_and_launches_nothing(built):
    factory = built.factory
    count, before = factory.launches.count(), resource.getrusage(resource.RUSAGE_CHILDREN)

    said, _ = factory.run("build", "--all", "--json")

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert factory.launches.count() == count
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert not any(node["fresh"] for node in json.loads(said)["nodes"])


def test_variants_hold_no_secret(built):
    secrets = secrets_of(built.factory)
    assert len(secrets) > 2 * NODES

    for image in sorted((built.factory.dist / "variants").glob("*.img")):
        assert found_in(squeezed(image), secrets) == [], image.name
    for path in (built.factory.cache / "variants").rglob("*"):
        if path.is_file():
            assert found_in(squeezed(path), secrets) == [], path


def test_a_stamp_holds_its_own_secrets_and_no_others(built):
    secrets = secrets_of(built.factory)
    stamps = built.factory.dist / "stamps"
    hashes = {"hash", "hash of ada", "hash of ops", "hash of third", "hash of root"}

    head = found_in((stamps / "node00.stamp").read_bytes(), secrets)
    worker = found_in((stamps / "node07.stamp").read_bytes(), secrets)

    assert set(head) == {*hashes, "psk", "node00", "node00 (PEM)"} | (
        {"id", "id (PEM)"} & set(head)
    )
    assert set(worker) == {*hashes, "node07", "node07 (PEM)"}


def test_nothing_that_may_be_shown_holds_a_secret(built):
    factory, secrets = built.factory, secrets_of(built.factory)
    as_json, verbose = factory.run("build", "--all", "--json")
    _, logged = Factory(factory.home, factory.launches).run(
        "--verbose", "build", "--node", "3", "--format", "qcow2", "-o", factory.home / "logged"
    )
    shown = {
        "stdout": built.said, "stderr": built.told, "json": as_json, "again": verbose, "log": logged,
        "manifest": (factory.dist / "manifest.json").read_text(),
        "its manifest": (factory.home / "logged" / "manifest.json").read_text(),
    }  # fmt: skip

    for name, text in shown.items():
        assert found_in(text.encode(), secrets) == [], name


@pytest.fixture(scope="session")
def image(built):
    """The full image of one worker: no launch."""
    count = built.factory.launches.count()
    built.factory.run("build", "--node", "node07")
    assert built.factory.launches.count() == count
    return built.factory.dist / "node07.img"


def test_the_image_is_the_variant_under_its_stamp(built, image, tmp_path):
    copy = tmp_path / "copy.img"
    copy_sparse(built.factory.dist / "variants" / "worker.img", copy)
    copy.chmod(0o600)
    apply_patches(copy, read_stamp(built.factory.dist / "stamps" / "node07.stamp").patches)

    tool("cmp", copy, image)


#: What only moves is not read for a plan; the label holds the build's id, which follows from secrets.
UNREAD = {"/home/ada/.bashrc", "/boot/firmware/piimage.json"}


def test_the_plan_names_what_changes_and_nothing_else(built, image, tmp_path):
    """What `plan` said before there was a variant, against what debugfs and mtools see in the base and in the image."""
    plan = json.loads(built.planned)
    (variant,), (node,) = plan["variants"], plan["nodes"]
    assert variant["exact"]
    named = {file["path"]: file for file in (*variant["files"], *node["files"])}

    base = built.factory.cache / "bases" / "phony" / "image.img"
    before, after = tree(base, tmp_path), tree(image, tmp_path)

    changed = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert changed == set(named)
    assert len(changed) > 60
    for path, file in named.items():
        there, now = before.get(path), after.get(path)
        action = "remove" if now is None else "add" if there is None else "change"
        assert file["action"] == action, path
        if now is None:
            continue
        if not path.startswith("/boot/firmware/"):
            owner = (file["kind"], int(file["mode"], 8), file["uid"], file["gid"])
            assert owner == (now.kind, now.mode, now.uid, now.gid), path
        if file["kind"] == "file" and not file["slot"] and path not in UNREAD:
            assert file["sha256"] == now.sha256, path


def test_overlays_are_there(image, tmp_path):
    found = stats(
        image,
        ["/home/ada/.config", "/home/ada/.config/site/name", "/usr/share/site/key", "/usr/share/site/link",
         "/var/opt/site", "/etc/systemd/system/multi-user.target.wants/site.service", "/usr/share"],
    )  # fmt: skip

    assert [(s.kind, s.mode & 0o7777, s.uid, s.gid) for s in found.values()] == [
        ("dir", 0o755, 1000, 1000),
        ("file", 0o644, 1000, 1000),
        ("file", 0o640, 1001, 1001),
        ("link", 0o777, 0, 0),
        ("dir", 0o2775, 0, 1002),
        ("link", 0o777, 0, 0),
        ("dir", 0o755, 0, 0),
    ]
    assert (
        content(image, "/home/ada/.config/site/name", tmp_path).rstrip(b"\n") == b"node07 of abacus"
    )
    assert content(image, "/usr/share/site/os", tmp_path) == b"debian 13 arm64"
    assert content(image, "/etc/sysctl.d/60-piimage-ping.conf", tmp_path) == b"# none\n"
    assert b"node07: node 7 of 64 in cluster abacus" in content(image, "/etc/motd", tmp_path)


def test_slots_hold_the_nodes_own(built, image, tmp_path):
    state = built.factory.home / "cluster.state"

    def slot(path):
        return content(image, path, tmp_path).rstrip(b"\n")

    assert slot(SLOT_KEY) == (state / "hosts/node07").read_bytes().rstrip(b"\n")
    assert slot(SLOT_CERT) == (state / "hosts/node07-cert.pub").read_bytes().rstrip(b"\n")
    assert b"node07" in slot(f"{SEED}/meta-data")
    assert b"10.9.1.8/16" in slot(f"{SEED}/network-config")
    assert b"10.9.1.64 node63.lab.example node63" in slot("/etc/hosts")
    assert slot("/etc/piimage/nodes").splitlines() == [b"node%02d" % n for n in range(NODES)]
    assert json.loads(fat_content(image, "piimage.json"))["node"] == "node07"


def test_owners_and_modes_of_slots_are_intact(image):
    found = stats(
        image,
        [SLOT_KEY, SLOT_CERT, f"{SEED}/user-data", "/etc/hosts", "/home/ada/.ssh/authorized_keys"],
    )

    assert [(s.kind, s.mode, s.uid, s.gid) for s in found.values()] == [
        ("file", 0o600, 0, 0),
        ("file", 0o644, 0, 0),
        ("file", 0o600, 0, 0),
        ("file", 0o644, 0, 0),
        ("file", 0o600, 1000, 1000),
    ]


def test_the_image_is_clean_and_its_bmap_valid(image, tmp_path):
    check(image, tmp_path)
    card = tmp_path / "card"
    card.write_bytes(b"\xa5" * 4096)
    os.truncate(card, image.stat().st_size)

    tool("bmaptool", "-q", "copy", "--bmap", image.with_suffix(".bmap"), image, card)

    check(card, tmp_path)
    assert content(card, SLOT_KEY, tmp_path) == content(image, SLOT_KEY, tmp_path)
    tool("sh", "-c", 'cd "$0" && sha256sum --strict -c node07.sha256', image.parent)
    assert {p.stat().st_mode & 0o777 for p in image.parent.glob("node07.*")} == {0o600}


def test_disk_signatures_differ(built, image):
    signatures = {
        patch.data
        for n in range(NODES)
        for patch in read_stamp(built.factory.dist / "stamps" / f"node{n:02}.stamp").patches
        if patch.offset == 0x1B8
    }

    assert len(signatures) == NODES
    with image.open("rb") as file:
        file.seek(0x1B8)
        assert file.read(4) in signatures


def test_an_image_is_made_again_only_when_it_must(built, image):
    before = image.stat().st_ino

    said, _ = built.factory.run("build", "--node", "7")
    assert "node07: unchanged" in said
    assert image.stat().st_ino == before
    image.with_suffix(".bmap").unlink()
    said, _ = built.factory.run("build", "--node", "7")

    assert "node07: built" in said
    assert image.with_suffix(".bmap").exists()


def test_another_format_takes_the_first_ones_place(built):
    factory = built.factory
    factory.run("build", "--node", "9")
    factory.run("build", "--node", "9", "--format", "img.zst")

    assert {p.name for p in factory.dist.glob("node09.*")} == {
        "node09.img.zst",
        "node09.bmap",
        "node09.sha256",
    }
    tool("sh", "-c", 'cd "$0" && sha256sum --strict -c node09.sha256', factory.dist)
    entry = factory.manifest()["nodes"]["node09"]
    assert "img" not in entry
    assert entry["img.zst"] == entry["stamp"]


def test_two_at_once(built):
    running = [built.factory.start("build", "--node", name) for name in ("11", "12", "13")]
    for child in running:
        assert child.communicate()[1] is not None
        assert child.returncode == 0

    nodes = built.factory.manifest()["nodes"]
    assert all("img" in nodes[f"node{n}"] for n in (11, 12, 13))


def test_another_clusters_directory_is_refused(built, tmp_path):
    other = factory_at(tmp_path / "other", built.factory.launches, name="other")
    other.more = {"PIIMAGE_CACHE": str(built.factory.cache)}
    before = (built.factory.dist / "manifest.json").read_bytes()

    _, told = other.run("build", "--all", "-o", built.factory.dist, expect=1)

    assert "holds the build of cluster `abacus`\nhint: choose another directory" in told
    assert (built.factory.dist / "manifest.json").read_bytes() == before
    assert not (other.home / "cluster.state").exists()


def test_the_users_own_directory_keeps_its_mode(built, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    own.chmod(0o755)

    built.factory.run("build", "--node", "0", "-o", own)

    assert own.stat().st_mode & 0o777 == 0o755
    assert (own / "node00.img").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("moment", [0.2, 0.5, 0.8, 1.1, 1.5])
def test_killed_at_any_moment(built, tmp_path, moment):
    """Whatever has a name is whole, the manifest does not claim what is not there, and the next build works."""
    output = tmp_path / "out"
    built.factory.run("build", "--node", "20", "-o", output)
    text = (built.factory.home / "cluster.yaml").read_text()
    (built.factory.home / "changed.yaml").write_text(text.replace("{count: 64", "{count: 63"))
    state, changed = (built.factory.home / f"{n}.state" for n in ("cluster", "changed"))
    if not changed.exists():
        tool("cp", "-a", state, changed)

    child = built.factory.start("build", "changed.yaml", "--node", "20", "-o", output)
    time.sleep(moment)
    child.kill()
    child.communicate()

    checksums = output / "node20.sha256"
    if checksums.exists():
        tool("sh", "-c", 'cd "$0" && sha256sum --strict -c node20.sha256', output)
    built.factory.run("build", "--node", "20", "-o", output)
    assert not [p for p in output.iterdir() if "partial" in p.name]
    tool("sh", "-c", 'cd "$0" && sha256sum --strict -c node20.sha256', output)
    assert b"node63" in content(output / "node20.img", "/etc/hosts", tmp_path)


def test_a_manifest_that_claims_what_a_killed_build_replaced(built, tmp_path):
    """Built, built otherwise and killed before the manifest was written: the first build must not be `unchanged`."""
    output = tmp_path / "out"
    built.factory.run("build", "--node", "21", "-o", output)
    text = (built.factory.home / "cluster.yaml").read_text()
    (built.factory.home / "slow.yaml").write_text(text.replace("{count: 64", "{count: 62"))
    tool("cp", "-a", built.factory.home / "cluster.state", built.factory.home / "slow.state")
    inode = (output / "node21.img").stat().st_ino

    child = built.factory.start("build", "slow.yaml", "--node", "21", "-o", output)
    while child.poll() is None and (output / "node21.img").stat().st_ino == inode:
        time.sleep(0.002)
    child.kill()
    child.communicate()
    said, _ = built.factory.run("build", "--node", "21", "-o", output)

    assert "node21: built" in said
    assert b"node63" in content(output / "node21.img", "/etc/hosts", tmp_path)


def test_interrupted(built, tmp_path):
    output = tmp_path / "out"
    child = built.factory.start("build", "--node", "22", "--format", "img.xz", "-o", output)
    while child.poll() is None and not list(output.glob(".*")):
        time.sleep(0.002)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate()

    assert child.returncode == 130
    assert "Traceback" not in told
    assert not list(output.iterdir())


def test_a_full_disk(built, tmp_path):
    """A real one: a small tmpfs in a mount namespace."""
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount -t tmpfs -o size=3m none "$0" && { "$@"; status=$?; ls -A "$0"; exit $status; }'
    before = ["unshare", "--mount", *root, "--", "sh", "-c", script, str(tmp_path)]

    said, told = built.factory.run("build", "--node", "30", "-o", tmp_path, before=before, expect=7)

    assert "error: " in told
    assert "hint: free some space" in told
    assert set(said.split()) <= {"manifest.json"}


@pytest.mark.parametrize("kind", ["img", "img.xz", "qcow2"])
def test_a_disk_that_takes_no_more(built, tmp_path, kind):
    out = tmp_path / "out"

    _, told = built.factory.run(
        "build", "--node", "31", "--format", kind, "-o", out, limit=30 << 20, expect=7
    )

    assert "hint: free some space" in told
    assert files(out) in ([], ["manifest.json"])
    built.factory.run("build", "--node", "31", "--format", kind, "-o", out)


def test_no_room_for_a_variant(built, tmp_path):
    factory, count = built.factory, built.factory.launches.count()
    text = (factory.home / "cluster.yaml").read_text()
    (factory.home / "zone.yaml").write_text(text.replace("Europe/Rome", "Etc/UTC"))
    before = files(factory.cache)

    _, told = factory.run(
        "build", "zone.yaml", "--node", "1", "-o", tmp_path, limit=30 << 20, expect=7
    )

    assert "PIIMAGE_CACHE" in told
    assert factory.launches.count() == count
    assert files(factory.cache) == before
    assert files(tmp_path) == []


def test_a_node_that_is_not_there(built):
    _, told = built.factory.run("build", "--node", "64", expect=2)

    assert told.splitlines()[-2:] == [
        "error: cluster `abacus` has no node `64`",
        "hint: it has 64: node00 to node63, or 0 to 63",
    ]


def test_root_start_is_where_the_table_says(image):
    """readback.py looks where the phony image has its root file system."""
    with image.open("rb") as file:
        file.seek(446 + 16 + 8)
        assert int.from_bytes(file.read(4), "little") * 512 == ROOT_START
