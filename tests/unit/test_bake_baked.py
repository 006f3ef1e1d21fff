"""Under which id a baked base is kept: whatever would give other bytes has another one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import phony_facts
import pytest

from piimage.bake import baked, packaging
from piimage.bake.lock import Layer, Package, Step
from piimage.bases.cache import Cache
from piimage.bases.record import Base, Origin

FACTS = phony_facts.debian()
BASE = Base(
    name="debian-13", path=Path("/base.img"), id="b" * 64, facts=FACTS, origin=Origin.now("made", "a test")
)  # fmt: skip
PACKAGE = Package(
    name="tzdata", version="1", architecture="all", sha256="a" * 64, size=1, installed=1, file="tzdata_1_all.deb"
)  # fmt: skip
LAYER = Layer(
    base="debian-13", below="0", roles=("all",), wanted=("tzdata",), packages=(PACKAGE,),
    steps=(Step("unpack", ("tzdata",)),),
)  # fmt: skip
ANSWER = "tzdata tzdata/Areas select Europe"


def test_the_same_inputs_have_the_same_id():
    script = packaging.script(LAYER, FACTS)
    assert baked.identity(BASE, LAYER, script) == baked.identity(BASE, LAYER, bytes(script))


def test_answers_to_a_packages_questions_give_another_id():
    plain = baked.identity(BASE, LAYER, packaging.script(LAYER, FACTS))

    assert baked.identity(BASE, LAYER, packaging.script(LAYER, FACTS, [ANSWER])) != plain
    others = ["wolfram-engine shared/accepted boolean true"]
    assert baked.identity(BASE, LAYER, packaging.script(LAYER, FACTS, others)) == plain


def test_another_script_gives_another_id():
    assert baked.identity(BASE, LAYER, b"a") != baked.identity(BASE, LAYER, b"b")


@pytest.fixture
def kept(tmp_path):
    """A cache that holds a baked base for the script `b"a"`."""
    cache = Cache(tmp_path)
    home = cache.directory("baked") / baked.identity(BASE, LAYER, b"a")
    home.mkdir()
    (home / "image.img").write_bytes(b"")
    (home / "facts.json").write_text(json.dumps(FACTS.to_json()))
    origin = {"kind": "baked", "source": "a test", "at": "2026-01-31T12:00:00Z", "sha256": None}
    (home / "baked.json").write_text(json.dumps({"engine": "chroot", "origin": origin}))
    return cache


def test_one_of_another_script_is_not_found(kept):
    assert baked.find(BASE, LAYER, b"a", kept) is not None
    assert baked.find(BASE, LAYER, b"b", kept) is None


def test_programs_that_note_the_day_are_told_which_and_no_others(tmp_path):
    """What is around dpkg in the script, run here: useradd is there, update-initramfs is not."""
    script = packaging.script(LAYER, dataclasses.replace(FACTS, made=1234567890)).decode()
    functions, _, _ = script.partition("\nkeep\n")
    says = '#!/bin/sh\necho "$0 $SOURCE_DATE_EPOCH $*"\n'
    for name in ("dpkg", "useradd"):
        (tmp_path / name).write_text(says)
        (tmp_path / name).chmod(0o755)
    body = (
        f"{functions}\n"
        'told_the_time "$when"\n'
        'run_dpkg --unpack "a b"\n'
        'PATH=$stable:$PATH useradd "a b"\n'
        "PATH=$stable:$PATH command -v update-initramfs || echo none\n"
    ).replace("/run/piimage", str(tmp_path / "run"))

    said = subprocess.run(
        ["sh", "-c", body], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    ).stdout.splitlines()  # fmt: skip

    assert said[0].startswith(f"{tmp_path}/dpkg  --force-unsafe-io ")
    assert said[1:] == [f"{tmp_path}/useradd 1234567890 a b", "none"]


def test_what_is_told_is_part_of_the_id():
    scripts = [packaging.script(LAYER, dataclasses.replace(FACTS, made=made)) for made in (1, 2)]

    assert baked.identity(BASE, LAYER, scripts[0]) != baked.identity(BASE, LAYER, scripts[1])
