"""Blinkt, stress and Wolfram: what goes into an image, and the bases that cannot have it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import phony_facts as phony
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.bake import packaging
from piimage.bake.lock import Layer, Package, Step
from piimage.cluster import Blinkt, Share, Ssh
from piimage.components import blinkt, stress, wolfram
from piimage.components.contribution import Contribution
from piimage.delta import File, Symlink
from piimage.errors import UnsupportedError
from piimage.guest.blinkt import control
from piimage.guest.blinkt import health as health_of_a_node
from piimage.plan import plan, recipe

GPIOD = {"python3-libgpiod": "2.2.1-2"}
SHARES = (Share(path="/srv/cluster", server="node0"),)


def with_packages(*names, facts=None):
    facts = facts or phony.debian()
    return replace(facts, packages={**facts.packages, **dict.fromkeys(names, "1")})


def bar(show="status", *, role=phony.WORKER, **more):
    cluster = phony.cluster(blinkt=Blinkt(show=show, brightness=9), **more)
    return blinkt.image(cluster, role, with_packages(*GPIOD))


def content(part, path):
    return part.delta.entries[path].content.decode()


# -- blinkt


def test_a_cluster_without_bars_gets_nothing():
    cluster = phony.cluster()
    assert blinkt.packages(cluster, phony.WORKER) == ()
    assert blinkt.image(cluster, phony.WORKER, phony.debian()) == Contribution()


def test_a_base_without_the_library_is_refused():
    cluster = phony.cluster(blinkt=Blinkt())
    assert blinkt.packages(cluster, phony.HEAD) == ("gpio-python",)
    with pytest.raises(UnsupportedError, match="no python3-libgpiod"):
        blinkt.image(cluster, phony.HEAD, phony.debian())


@pytest.mark.parametrize("show", ["load", "larson", "status"])
def test_a_bar_shows_from_the_boot_on(show):
    assert bar(show).enable == ("piimage-blinkt.service",)
    assert json.loads(content(bar(show), "/etc/piimage/blinkt.json"))["show"] == show


def test_a_bar_that_is_off_has_its_command_and_no_unit_that_starts():
    part = bar("off")
    assert part.enable == ()
    assert part.delta.entries[blinkt.COMMAND].mode == 0o755
    assert ("blinkt unit", "^disabled$") in {(c.name, c.expect) for c in part.checks}


def test_the_plan_of_a_variant_enables_the_unit():
    cluster = phony.cluster(blinkt=Blinkt())
    planned = plan.plan_variant(cluster, phony.WORKER, with_packages(*GPIOD))
    link = "/etc/systemd/system/multi-user.target.wants/piimage-blinkt.service"
    assert planned.delta.entries[link] == Symlink("/etc/systemd/system/piimage-blinkt.service")
    off = replace(cluster, blinkt=Blinkt(show="off"))
    planned = plan.plan_variant(off, phony.WORKER, with_packages(*GPIOD))
    assert link not in planned.delta.entries
    preset = content(planned, "/etc/systemd/system-preset/10-piimage.preset")
    assert "disable piimage-blinkt.service\n" in preset


def test_the_setting_is_what_the_driver_reads(tmp_path):
    path = tmp_path / "blinkt.json"
    path.write_text(content(bar("load", shares=SHARES), "/etc/piimage/blinkt.json"))

    found = control.settings(path)

    assert found.wish == control.Wish("load", 9)
    assert found.shares == (health_of_a_node.Share("/srv/cluster", "node0"),)
    assert str(control.SETTINGS) == blinkt.SETTINGS
    assert control.UNIT == blinkt.UNIT
    assert Path(blinkt.COMMAND).name == "piimage-blinkt"


def install(part, root):
    """The files of a contribution below `root`."""
    for path, entry in part.delta:
        if isinstance(entry, File):
            target = root / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(entry.content)
            target.chmod(entry.mode)


def launcher(part, root):
    """The installed command, with the library's place moved below `root`."""
    install(part, root)
    text = (root / blinkt.COMMAND[1:]).read_text()
    assert text.startswith("#!/usr/bin/python3 -I\n")
    return text.replace('"/usr/lib/piimage"', repr(str(root / "usr/lib/piimage")))


def test_the_shipped_command_runs_alone_and_does_what_its_check_wants(tmp_path):
    part = bar()
    check = next(check for check in part.checks if check.name == "blinkt driver")
    argv = [sys.executable, "-I", "-c", launcher(part, tmp_path), *check.argv[1:]]

    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(check.expect, done.stdout, re.MULTILINE)
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("argv", "asked"),
    [
        (["node3"], "locate --on=node3 --seconds=60\n"),
        (["node3", "5"], "locate --on=node3 --seconds=5\n"),
        (["-x y"], "locate --on=-x y --seconds=60\n"),
        ([], None),
        (["a", "1", "b"], None),
    ],
)
def test_locate_asks_the_command(argv, asked, tmp_path):
    part = bar(role=phony.HEAD)
    assert part.delta.entries["/home/federico/bin/locate"] == Symlink(blinkt.LOCATE, 1000, 1000)
    install(part, tmp_path)
    command = tmp_path / blinkt.COMMAND[1:]
    command.write_text('#!/bin/sh\necho "$@"\n')
    env = {"PATH": f"{command.parent}:/usr/bin:/bin"}

    done = subprocess.run(
        [tmp_path / blinkt.LOCATE[1:], *argv], capture_output=True, text=True, env=env, check=False
    )

    assert (done.returncode, done.stdout) == ((0, asked) if asked else (2, ""))
    assert bool(asked) or "usage: locate NODE" in done.stderr


def test_locate_is_where_the_first_user_reaches_the_others():
    assert blinkt.LOCATE not in bar().delta.entries
    assert blinkt.LOCATE in bar(ssh=Ssh(trust="mesh")).delta.entries


def test_the_shell_is_clean(tmp_path):
    install(bar(role=phony.HEAD), tmp_path)
    argv = ["shellcheck", "--severity=style", tmp_path / blinkt.LOCATE[1:]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_unit_is_one_that_systemd_understands(tmp_path):
    unit = tmp_path / blinkt.UNIT
    unit.write_text(
        content(bar(), f"/etc/systemd/system/{blinkt.UNIT}").replace(blinkt.COMMAND, "/bin/true")
    )

    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    unit.write_text(unit.read_text().replace("Nice=10", "Nice=ten"))
    broken = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert "nice priority" in broken.stderr


def test_the_unit_needs_no_mount_namespace():
    """Making one walks over all mounts, also over a share whose server is dead."""
    text = content(bar(), f"/etc/systemd/system/{blinkt.UNIT}")
    makers = (
        "Protect(System|Home|KernelModules|KernelTunables|KernelLogs|ControlGroups|Proc)|PrivateTmp|PrivateDevices"
        "|PrivateMounts|DynamicUser|(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec|BindReadOnly|Bind)Paths"
        "|TemporaryFileSystem|RootDirectory|RootImage|MountAPIVFS|(Runtime|State|Cache|Logs)Directory|MountFlags"
    )
    assert re.findall(rf"^(?:{makers})=.*", text, re.MULTILINE) == []


# -- stress


@pytest.mark.parametrize("name", ["stress", "stress-ng"])
def test_the_load_generator_that_is_there_is_run(name):
    cluster = phony.cluster(stress=True)
    part = stress.image(cluster, phony.WORKER, with_packages(name))
    (check,) = part.checks
    assert (check.argv[0], check.user) == (name, "federico")


def test_a_base_without_a_load_generator_is_refused():
    cluster = phony.cluster(stress=True)
    assert stress.packages(cluster, phony.HEAD) == stress.packages(cluster, phony.WORKER)
    assert stress.packages(cluster, phony.HEAD) == ("stress",)
    with pytest.raises(UnsupportedError, match="neither stress nor stress-ng"):
        stress.image(cluster, phony.HEAD, phony.debian())


def test_without_the_wish_there_is_no_load_generator():
    assert stress.packages(phony.cluster(), phony.HEAD) == ()
    assert stress.image(phony.cluster(), phony.HEAD, phony.debian()) == Contribution()


# -- wolfram


def test_the_head_gets_the_engine_and_its_licence_is_accepted():
    cluster = phony.cluster(wolfram=True)
    assert wolfram.packages(cluster, phony.HEAD) == ("wolfram-engine",)
    assert wolfram.packages(cluster, phony.WORKER) == ()
    line = "wolfram-engine shared/accepted-wolfram-eula boolean true"
    assert wolfram.preseed(cluster, phony.HEAD) == (line,)
    assert recipe.preseed(cluster) == (line,)
    (check,) = wolfram.image(cluster, phony.HEAD, with_packages("wolfram-engine")).checks
    assert check.argv[-1] == "wolfram-engine"


def test_no_licence_is_accepted_without_the_owners_word():
    cluster = phony.cluster()
    assert recipe.preseed(cluster) == ()
    assert wolfram.packages(cluster, phony.HEAD) == ()


def test_a_head_that_cannot_have_the_engine_is_refused_and_workers_are_not():
    cluster = phony.cluster(wolfram=True)
    with pytest.raises(UnsupportedError, match="only the archive of Raspberry Pi OS"):
        wolfram.image(cluster, phony.HEAD, phony.debian())
    assert wolfram.image(cluster, phony.WORKER, phony.debian()) == Contribution()


def test_before_anything_is_baked_the_heads_base_is_looked_at():
    cluster = phony.cluster(wolfram=True)
    source = phony.text("Types: deb\nURIs: http://archive.raspberrypi.example/debian/\n")
    raspberry = phony.with_files(phony.debian(), {"/etc/apt/sources.list.d/raspi.sources": source})

    recipe.refuse(cluster, [phony.HEAD, phony.WORKER], raspberry)
    recipe.refuse(cluster, [phony.WORKER], phony.debian())
    recipe.refuse(phony.cluster(), [phony.HEAD], phony.debian())
    recipe.refuse(cluster, [phony.HEAD], with_packages("wolfram-engine"))
    with pytest.raises(UnsupportedError, match="only the archive of Raspberry Pi OS"):
        recipe.refuse(cluster, [phony.WORKER, phony.HEAD], phony.debian())


def package(name):
    return Package(
        name=name, version="1", architecture="arm64", sha256="0" * 64, size=1, installed=1,
        file=f"{name}.deb",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["wolfram-engine", "wolfram-engine:arm64", "foo"])
def test_debconf_is_answered_where_the_package_is_installed(name):
    layer = Layer(
        base="b", below="0" * 64, roles=("head",), wanted=(name,), packages=(package(name),),
        steps=(Step("unpack", (name,)), Step("configure", (name,))),
    )  # fmt: skip
    lines = wolfram.preseed(phony.cluster(wolfram=True), phony.HEAD)

    text = packaging.script(layer, phony.debian(), lines).decode()

    asked = name.startswith("wolfram")
    assert ("'wolfram-engine shared/accepted-wolfram-eula boolean true'" in text) is asked
    assert ("debconf-set-selections" in text) is asked
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


# -- all of them


@given(st.sampled_from(["off", "load", "larson", "status"]), st.integers(1, 31), st.booleans())
def test_equal_wishes_give_equal_variants(show, brightness, loaded):
    cluster = phony.cluster(blinkt=Blinkt(show=show, brightness=brightness), stress=loaded)
    facts = with_packages(*GPIOD, "stress")
    digests = {plan.plan_variant(cluster, phony.WORKER, facts).digest() for _ in range(2)}
    other = replace(cluster, blinkt=Blinkt(show=show, brightness=brightness % 31 + 1))
    assert len(digests) == 1
    assert plan.plan_variant(other, phony.WORKER, facts).digest() not in digests
