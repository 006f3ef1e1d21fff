"""The lock file: written and read back, found by what it stands on, refused when it is not whole."""

from __future__ import annotations

from dataclasses import replace

import phony_facts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.bake import lock
from piimage.bake.layers import refuse_removals, split
from piimage.bake.lock import Layer, Lock, Package, Step
from piimage.errors import ConfigError

PACKAGE = Package(
    name="libfoo1",
    version="1:2.0~rc1-3+b1",
    architecture="arm64",
    sha256="12e4" + "5" * 60,
    size=1000,
    installed=12,
    file="libfoo1_1%3a2.0~rc1-3+b1_arm64.deb",
    automatic=True,
)
LAYER = Layer(
    base="debian-13",
    below="b" * 64,
    roles=("head", "worker"),
    wanted=("foo",),
    packages=(PACKAGE, replace(PACKAGE, name="foo", automatic=False, replaces="0.9")),
    steps=(Step("unpack", ("libfoo1",)), Step("configure", ("libfoo1",)), Step("unpack", ("foo",))),
)

names = st.builds(str.__add__, st.sampled_from("an0e1"), st.text("no0e1+.-", max_size=8))
versions = st.builds(str.__add__, st.sampled_from("0179"), st.text("0e1.+~:-r", max_size=8))
packages = st.builds(
    Package,
    name=names,
    version=versions,
    architecture=st.sampled_from(["arm64", "all"]),
    sha256=st.sampled_from(["0" * 64, "1e" + "2" * 62, "ab" * 32]),
    size=st.integers(0, 1 << 40),
    installed=st.integers(0, 1 << 30),
    file=names,
    automatic=st.booleans(),
    replaces=st.none() | versions,
)
layers = st.builds(
    Layer,
    base=names,
    below=st.sampled_from(["0" * 64, "1e" + "2" * 62, "ab" * 32]),
    roles=st.lists(names, max_size=3).map(tuple),
    wanted=st.lists(names, max_size=3).map(tuple),
    packages=st.lists(packages, max_size=3).map(tuple),
    steps=st.lists(
        st.builds(
            Step,
            st.sampled_from(["unpack", "configure", "remove"]),
            st.lists(names, min_size=1, max_size=3).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
)


@settings(deadline=None)  # a lock is synced to the disk
@given(st.lists(layers, max_size=2))
def test_what_is_written_is_read(tmp_path_factory, found):
    path = tmp_path_factory.getbasetemp() / "any.lock"
    lock.write(path, Lock(tuple(found)))

    assert lock.read(path) == Lock(tuple(found))


def test_no_file_is_no_lock(tmp_path):
    assert lock.read(tmp_path / "cluster.lock") is None


def test_a_package_is_one_line_to_compare(tmp_path):
    text = Lock((LAYER,)).text()

    rows = [line for line in text.splitlines() if "sha256" in line]
    assert [row.strip()[:14] for row in rows] == ["- {name: libfo", "- {name: foo, "]
    assert "  roles: [head, worker]\n" in text
    assert text.startswith("# ")


def test_an_equal_lock_is_not_written_again(tmp_path):
    path = tmp_path / "cluster.lock"
    lock.write(path, Lock((LAYER,)))
    before = path.stat().st_ino

    lock.write(path, Lock((LAYER,)))

    assert path.stat().st_ino == before


def test_a_layer_is_found_by_what_it_stands_on_and_what_was_wanted():
    found = Lock((LAYER,))

    assert found.find("b" * 64, ["foo"]) is LAYER
    assert found.find("c" * 64, ["foo"]) is None
    assert found.find("b" * 64, ["foo", "bar"]) is None


def test_the_digest_is_of_what_is_installed_and_not_for_whom():
    assert replace(LAYER, roles=(), base="other").digest() == LAYER.digest()
    for other in (
        replace(LAYER, below="c" * 64),
        replace(LAYER, packages=LAYER.packages[:1]),
        replace(LAYER, steps=LAYER.steps[:1]),
    ):
        assert other.digest() != LAYER.digest()


def test_bases_with_equal_packages_share_a_lock():
    facts = phony_facts.debian()

    assert lock.installed_digest(facts) == lock.installed_digest(replace(facts, image_id="other"))
    changed = replace(facts, packages={**facts.packages, "new": "1"})
    assert lock.installed_digest(facts) != lock.installed_digest(changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("layers:", "layer:"),
        ("size: 1000", "size: many"),
        ("size: 1000", "size: -1"),
        ("file: libfoo1_1", "file: ../libfoo1_1"),
        ("name: libfoo1", "name: --force"),
        ("- libfoo1", "- '; reboot'"),
        ("- configure", "- purge"),
        ('"12e4', '"xyz4'),
        ("architecture: arm64", "arch: arm64"),
        ("roles: [head, worker]", "roles: [1]"),
    ],
)
def test_a_lock_that_is_not_ours_is_refused(tmp_path, old, new):
    path = tmp_path / "cluster.lock"
    text = Lock((LAYER,)).text()
    assert old in text
    path.write_text(text.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        lock.read(path)

    assert "lock --update" in caught.value.hint


def test_what_has_to_go():
    steps = (Step("remove", ("a", "b")), Step("unpack", ("c",)), Step("remove", ("d",)))

    assert replace(LAYER, steps=steps).removed == ("a", "b", "d")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, {}),
        ({"w": []}, {"w": ()}),
        ({"w": ["b", "a"]}, {"w": (("a", "b"),)}),
        ({"h": "abc", "w": "ab"}, {"h": (("a", "b"), ("c",)), "w": (("a", "b"),)}),
        ({"h": "ac", "w": "ab"}, {"h": (("a",), ("c",)), "w": (("a",), ("b",))}),
        ({"h": "c", "w": ""}, {"h": (("c",),), "w": ()}),
        ({"h": "c", "w": "d"}, {"h": (("c",),), "w": (("d",),)}),
    ],
)
def test_what_all_roles_share_comes_first(wanted, expected):
    assert split(wanted) == expected


@given(st.dictionaries(st.integers(0, 4), st.frozensets(names, max_size=6), max_size=4))
def test_layers_hold_what_was_wanted_and_nothing_twice(wanted):
    for role, sets in split(wanted).items():
        flat = [name for layer in sets for name in layer]
        assert sorted(flat) == sorted(wanted[role])
        assert all(layer == tuple(sorted(layer)) and layer for layer in sets)


def test_a_layer_that_puts_out_what_is_wanted_is_refused():
    """A head's firewalld over the cloud-init of all: the card would come up without a name or a user."""
    steps = (Step("remove", ("cloud-init", "gone")), *LAYER.steps)
    layer = replace(LAYER, steps=steps, wanted=("firewalld",))

    refuse_removals(layer, {"foo": "`packages` of role `head`"})
    refuse_removals(LAYER, {"cloud-init": "component `cloudinit`"})
    with pytest.raises(
        ConfigError, match="`firewalld` cannot be installed beside `cloud-init`, which component"
    ):
        refuse_removals(layer, {"cloud-init": "component `cloudinit`"})
