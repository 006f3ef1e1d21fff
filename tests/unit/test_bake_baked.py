"""Under which id a baked base is kept: whatever would give other bytes has another one."""

from __future__ import annotations

import json
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
