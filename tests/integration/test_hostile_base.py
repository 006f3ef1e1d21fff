"""A base that tries to lead a build astray: links out of it, names with newlines, lines that are no accounts."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures import raspios
from fixtures.card import link, text
from fixtures.reading import Reading

YAML = """\
version: 1
name: wild
base: vendor
users:
  - {name: ada, uid: 1000, rename_from: auto, sudo: nopasswd, password: locked}
network: {wired: {subnet: 10.77.0.0/16, first: 10.77.3.1}}
nodes: {count: 1, name: "n{n}", head: 0}
"""
CHOICE = raspios.Choice(date="2026-04-13", disk_id="0bad0bad", user="rosa")
OURS = ("/etc/hosts", "/etc/shadow", "/etc/passwd", "/etc/hostname")
BROKEN = "this is no account\nx:y:z\n::::::\nmallory:x:-1:-1::/:/bin/sh\n"


def digests(*paths):
    found = {}
    for path in map(Path, paths):
        stat = path.stat()
        found[path] = (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            stat.st_mtime_ns,
            stat.st_uid,
            stat.st_mode,
        )
    return found


def run(home, *words):
    return subprocess.run(
        [sys.executable, "-m", "piimage", *map(str, words)],
        cwd=home,
        env={**os.environ, "PIIMAGE_CACHE": str(home / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def base(home, more):
    """The image with `more` in its root, imported; what came of it."""
    card = raspios.trixie(CHOICE)
    image = replace(card, root={**card.root, **more}).write(home / "vendor.img")
    (home / "cluster.yaml").write_text(YAML)
    return run(home, "base", "import", image, "--name", "vendor")


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    """A card that was built over links and names meant to do harm, and what was outside before."""
    home = tmp_path_factory.mktemp("wild")
    canary = home / "canary"
    canary.write_text("untouched\n")
    nest = home / "nest"
    nest.mkdir()
    out = f"../../../../../..{canary}"
    passwd = raspios.trixie(CHOICE).root["/etc/passwd"]
    before = digests(*OURS, canary)
    done = base(
        home,
        {
            "/etc/hosts": link("../../../etc/shadow"),
            "/etc/hostname": link(out),
            "/etc/default/keyboard": link(str(canary)),
            "/etc/passwd": replace(passwd, data=passwd.content + BROKEN.encode()),
            "/home/rosa/outside": link(f"../../../../../..{nest}"),
            "/home/rosa/canary": link(str(canary)),
            "/home/rosa/two\nlines; touch pwned": text("kept\n"),
            "/home/rosa/$(touch pwned)": text("kept\n", uid=1000, gid=1000),
            "/etc/new\nline": text("kept\n"),
        },
    )
    assert done.returncode == 0, done.stderr
    done = run(home, "build", "--node", "0")
    assert done.returncode == 0, done.stderr
    return home, Reading(home / "dist/wild/n0.img", home), before


def test_nothing_outside_the_image_was_touched(wild):
    home, _, before = wild

    assert digests(*before) == before
    assert list((home / "nest").iterdir()) == []
    assert not [p for p in (home, Path.cwd(), Path("/")) if (p / "pwned").exists()]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(wild):
    _, card, _ = wild

    card.check()
    assert card.inode("/etc/hosts").kind == "regular"
    assert "10.77.3.1 n0\n" in card.text("/etc/hosts")
    assert card.inode("/etc/hostname").kind == "regular"
    shadow = card.text("/etc/shadow")
    assert shadow.startswith("root:")
    assert "10.77.3.1" not in shadow


def test_lines_that_are_no_accounts_stay_and_make_nobody(wild):
    _, card, _ = wild

    passwd = card.text("/etc/passwd")
    assert all(f"{line}\n" in passwd for line in BROKEN.splitlines())
    assert "\nada:x:1000:1000:" in passwd


def test_odd_names_move_with_the_home(wild):
    _, card, _ = wild

    names = {name.partition("\n")[0] for name in card.names("/home/ada")}
    assert {"outside", "canary", "$(touch pwned)"} <= names
    assert card.inode("/home/ada/canary").kind == "symlink"
    assert card.inode("/home/ada/$(touch pwned)").uid == 1000
    assert card.inode("/home/rosa") is None


@pytest.mark.parametrize("place", ["/etc/ssh/sshd_config.d", "/usr/lib/piimage"])
def test_a_directory_that_is_a_link_out_is_refused(place, tmp_path):
    nest = tmp_path / "nest"
    nest.mkdir()

    card = raspios.trixie(CHOICE)
    gone = {p: n for p, n in card.root.items() if f"{p}/".startswith(f"{place}/")}
    for path in gone:
        del card.root[path]
    (tmp_path / "cluster.yaml").write_text(YAML)
    image = replace(card, root={**card.root, place: link(f"../../../../../..{nest}")}).write(
        tmp_path / "vendor.img"
    )
    done = run(tmp_path, "base", "import", image, "--name", "vendor")
    if done.returncode == 0:
        done = run(tmp_path, "build", "--node", "0")

    assert done.returncode == 1
    assert f"`{place}` is a link, not a directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(nest.iterdir()) == []
