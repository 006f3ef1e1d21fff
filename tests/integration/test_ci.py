"""The documented CI pipeline, played command by command, and the desk that holds the state: no launch for any of it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from factory import Factory, factory_at, files, found_in, secrets_of, squeezed
from readback import content, tool

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/how-to/ci/github.yml"
NAMES = ("OPS_PASSWORD", "LAB_PSK")


def steps(job: str, row: dict[str, str]) -> list[list[str]]:
    """The piimage commands of a job of the example, with the matrix filled in."""
    jobs = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["jobs"]
    lines = [line for step in jobs[job]["steps"] for line in step.get("run", "").splitlines()]
    filled = [
        re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda m: row[m[1]], line)
        for line in lines
        if line.startswith("piimage ")
    ]
    return [shlex.split(line)[1:] for line in filled]


@dataclass
class Runner(Factory):
    """A machine of CI's: its own directory, and neither the state nor anything that cluster.yaml refers to."""

    secret: bool = False

    def environment(self):
        found = super().environment()
        return found if self.secret else {k: v for k, v in found.items() if k not in NAMES}


def runner(home: Path, built, **more) -> Runner:
    """A fresh checkout."""
    factory = factory_at(home, built.factory.launches)
    (home / "root.secret").unlink()
    return Runner(home, factory.launches, **more)


@dataclass(frozen=True)
class Played:
    """What CI leaves: a directory with an artifact for each variant."""

    kept: Path
    matrix: list[dict[str, str]]
    homes: tuple[Path, ...]


@pytest.fixture(scope="module")
def played(built, tmp_path_factory):
    """Validate, then each job of the matrix on a machine of its own; the base with its packages is CI's cache."""
    place = tmp_path_factory.mktemp("ci")
    cache = {"PIIMAGE_CACHE": str(built.factory.cache)}
    first = runner(place / "validate", built, more=cache)
    first.run(*steps("validate", {})[0])
    said, _ = first.run("matrix", "--format", "github")
    matrix = json.loads(said)["include"]
    before, homes = built.factory.launches.count(), []
    for row in matrix:
        job = runner(place / f"job-{row['variant']}", built, more=cache)
        for command in steps("variants", row):
            # The phony base has all packages: there is no lock to keep to.
            job.run(*command)
        assert not (job.home / "cluster.state").exists()
        shutil.copytree(job.home / "dist/variants", place / "kept" / f"variant-{row['variant']}")
        homes.append(job.home / "dist")
    assert built.factory.launches.count() == before
    return Played(place / "kept", matrix, tuple(homes))


def test_each_variant_is_a_job(played):
    assert [(row["variant"], row["node"]) for row in played.matrix] == [
        ("head", "node00"),
        ("worker", "node01"),
    ]
    assert files(played.kept) == sorted(
        f"variant-{name}/{name}.{kind}"
        for name in ("head", "worker")
        for kind in ("bmap", "img.zst", "sha256", "variant.gz")
    )


def test_what_ci_keeps_holds_no_secret(built, played, tmp_path):
    secrets = secrets_of(built.factory)

    for path in (
        p for home in (played.kept, *played.homes) for p in home.rglob("*") if p.is_file()
    ):
        plain = path
        if path.suffix in (".zst", ".gz"):
            plain = tmp_path / "plain"
            tool("sh", "-c", '"$0" -dc "$1" >"$2"', path.suffix[1:].replace("gz", "gzip").replace("zst", "zstd"),
                 path, plain)  # fmt: skip
        assert found_in(squeezed(plain), secrets) == [], path


def test_the_rehearsal_is_of_these_images_with_made_up_keys(built, played, tmp_path):
    job = runner(tmp_path / "rehearse", built, secret=True)
    (job.home / "root.secret").write_text("made up\n")
    shutil.copytree(played.kept, job.home / "variants")
    commands = steps("rehearse", {})
    before = built.factory.launches.count()

    for command in commands:
        if command[0] != "boot":  # which is what tests/e2e/test_cluster.py does
            job.run(*command)

    assert [command[0] for command in commands] == ["build", "verify", "boot"]
    assert built.factory.launches.count() == before
    for role in ("head", "worker"):
        tool(
            "cmp",
            job.home / f"dist/variants/{role}.img",
            built.factory.dist / f"variants/{role}.img",
        )
    made_up, own = (home / "cluster.state/ca.pub" for home in (job.home, built.factory.home))
    assert made_up.read_bytes() != own.read_bytes()


@pytest.fixture(scope="module")
def desk(built, played, tmp_path_factory):
    """Whoever holds the state: no base, no cache, what cluster.yaml refers to."""
    home = tmp_path_factory.mktemp("desk")
    factory = Runner(home, built.factory.launches, secret=True)
    factory_at(home, built.factory.launches)
    exported = home / "exported.tar"
    built.factory.run("state", "export", exported)
    # The base is named as nothing of the catalog is, and is not here.
    factory.run("build", "--all", "--from-variants", played.kept, "--require-state", expect=1)
    shutil.copytree(built.factory.home / "cluster.state", home / "cluster.state")
    return factory


def test_stamps_are_those_of_a_build_at_the_desk(built, played, desk):
    before = desk.launches.count()

    said, _ = desk.run("build", "--all", "--from-variants", played.kept, "--require-state")

    assert desk.launches.count() == before
    assert not (desk.cache / "bases").exists()
    *stamps, following = said.splitlines()
    assert len(stamps) == 64
    assert following.startswith("next: `piimage boot --all --smoke`")
    for name in files(built.factory.dist / "stamps"):
        tool("cmp", desk.dist / "stamps" / name, built.factory.dist / "stamps" / name)
    ours, theirs = desk.manifest(), built.factory.manifest()
    assert ours["variants"] == theirs["variants"]
    assert {n: e["stamp"] for n, e in ours["nodes"].items()} == {
        n: e["stamp"] for n, e in theirs["nodes"].items()
    }
    plans = [json.loads((f.dist / "plan.json").read_bytes()) for f in (desk, built.factory)]
    assert [{**n, "build": ""} for n in plans[0]["nodes"]] == [
        {**n, "build": ""} for n in plans[1]["nodes"]
    ]
    said, _ = desk.run("build", "--all", "--from-variants", played.kept, "--json")
    assert not any(node["fresh"] for node in json.loads(said)["nodes"])


def test_a_card_is_written_and_proven(played, desk, tmp_path):
    desk.run("build", "--all", "--from-variants", played.kept)
    card = tmp_path / "card.img"

    desk.run("flash", card, "--node", "7", "--yes")
    said, _ = desk.run("verify", card, "--node", "7")

    assert "node07" in said
    key = desk.home / "cluster.state/hosts/node07"
    assert content(card, "/etc/ssh/ssh_host_ed25519_key", tmp_path).rstrip(
        b"\n"
    ) == key.read_bytes().rstrip(b"\n")


def test_a_card_in_a_reader_too(played, desk, tmp_path):
    """A loop device, which is no card, and so has to be allowed: written, read back, proven, known."""
    desk.run("build", "--all", "--from-variants", played.kept)
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(256 << 20)
    loop = tool("losetup", "--find", "--show", tmp_path / "disk").decode().strip()
    try:
        argv = ("flash", loop, "--node", "7", "--allow", "not-removable")
        child = desk.start(*argv, stdin=subprocess.PIPE)
        told = child.communicate("y\n", timeout=300)[1]
        assert child.returncode == 0, told
        said, _ = desk.run("verify", loop)
        card, _ = desk.run("card", loop)
    finally:
        tool("losetup", "--detach", loop)

    assert said.startswith("node07 ")
    assert "node07" in card
    assert "newest" in card


def test_an_image_of_one_node_too(played, desk, tmp_path):
    desk.run(
        "build",
        "--node",
        "7",
        "--from-variants",
        played.kept,
        "-o",
        tmp_path / "out",
        "--format",
        "img",
    )

    desk.run("verify", tmp_path / "out")


def test_a_variant_of_another_cluster_yaml_is_refused(played, desk):
    text = (desk.home / "cluster.yaml").read_text()
    (desk.home / "other.yaml").write_text(
        text.replace("overlays: [motd, site]", "overlays: [motd]")
    )

    argv = ("build", "other.yaml", "--all", "--from-variants", played.kept, "-o", desk.home / "no")
    _, told = desk.run(*argv, expect=1)

    assert "as cluster.yaml wants it now: other files, such as `" in told
    assert not (desk.home / "no").exists()
    assert not (desk.home / "other.state").exists()


def test_a_variant_of_other_overlays_is_refused_with_the_file(played, desk):
    path = desk.home / "overlays/site/rootfs/usr/share/site/key"
    before = path.read_text()
    path.write_text("another\n")

    _, told = desk.run("build", "--node", "1", "--from-variants", played.kept, expect=1)
    path.write_text(before)

    assert (
        "role `worker` as cluster.yaml wants it now: other files, such as `/usr/share/site/key`\n"
        in told
    )


def test_a_role_whose_variant_is_not_among_them_is_named(played, desk):
    _, told = desk.run("build", "--all", "--from-variants", played.kept / "variant-head", expect=1)

    assert "no variant of role `worker` as cluster.yaml wants it now: it has `head`\n" in told


def test_an_image_that_was_changed_is_refused(played, desk, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(played.kept, kept)
    image = kept / "variant-worker/worker.img.zst"
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    image.write_bytes(data)
    other = replace(desk, more={"PIIMAGE_CACHE": str(tmp_path / "cache")})

    _, told = other.run(
        "build", "--node", "1", "--from-variants", kept, "-o", tmp_path / "out", expect=4
    )

    assert "worker.img.zst` has sha256" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [b"", b"no gzip", "half"])
def test_what_belongs_to_an_image_and_is_damaged_is_named(played, desk, tmp_path, damage):
    kept = tmp_path / "kept"
    shutil.copytree(played.kept, kept)
    path = kept / "variant-worker/worker.variant.gz"
    path.write_bytes(path.read_bytes()[:500] if damage == "half" else damage)

    _, told = desk.run("build", "--all", "--from-variants", kept, "-o", tmp_path / "out", expect=1)

    assert "worker.variant.gz` is damaged" in told


def test_a_directory_without_variants_says_how_they_are_made(desk, tmp_path):
    _, told = desk.run("build", "--all", "--from-variants", tmp_path, expect=1)

    assert "holds no variant\nhint: `piimage build --only-variants` makes them" in told
