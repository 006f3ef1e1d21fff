"""Logical package names: which table answers, what is left out, what is refused."""

from __future__ import annotations

from dataclasses import replace

import phony_facts
import pytest

from piimage.distros.packages import levels, real_names
from piimage.errors import ConfigError, UnsupportedError
from piimage.facts import OsRelease

DEBIAN = phony_facts.debian()


def os(name, version="", like=()):
    return replace(DEBIAN, os=OsRelease(id=name, version_id=version, id_like=like, pretty="Odd 1"))


@pytest.fixture
def table(tmp_path):
    """Writes profiles/packages/NAME.yaml beside cluster.yaml."""
    home = tmp_path / "profiles" / "packages"
    home.mkdir(parents=True)

    def write(name, text):
        (home / f"{name}.yaml").write_text(text)
        return tmp_path

    return write


def test_release_goes_before_distribution_before_family_before_default():
    assert levels(os("raspbian", "12", ("debian",))) == (
        "raspios-12", "raspios", "raspbian-12", "raspbian", "debian", "default",
    )  # fmt: skip
    assert levels(os("debian")) == ("debian", "default")


def test_raspberry_pi_os_has_tables_of_its_own_though_it_is_called_debian():
    facts = replace(os("debian", "13"), rpi_issue="Raspberry Pi reference 2026-06-18\n")

    assert levels(facts) == ("raspios-13", "raspios", "debian-13", "debian", "default")


def test_each_level_answers_when_no_higher_one_does(table):
    table("default", "a: [a-default]\nb: [b-default]\nc: [c-default]\nd: [d-default]\n")
    table("debian", "a: [a-family]\nb: [b-family]\nc: [c-family]\n")
    table("ubuntu", "a: [a-distro]\nb: [b-distro]\n")
    beside = table("ubuntu-24.04", "a: [a-release, a-more]\n")

    found = real_names(dict.fromkeys("abcd", "me"), os("ubuntu", "24.04", ("debian",)), beside)

    assert list(found) == ["a-release", "a-more", "b-distro", "c-family", "d-default"]


def test_a_name_that_no_table_has_is_a_package():
    assert real_names({"htop": "`packages`"}, DEBIAN) == {"htop": "`packages`"}


def test_what_is_installed_is_left_out():
    facts = replace(DEBIAN, packages={"nfs-common": "1"})

    assert real_names({"nfs-client": "me", "nfs-server": "you"}, facts) == {
        "nfs-kernel-server": "you"
    }


def test_two_logical_names_may_share_a_package():
    found = real_names({"compiler": "one", "mpi-openmpi-dev": "two"}, DEBIAN)

    assert found["gcc"] == "one"
    assert found["libopenmpi-dev"] == "two"


@pytest.mark.parametrize("value", ["null", "[]"])
def test_what_a_base_has_nothing_for_is_refused(table, value):
    beside = table("debian-13", f"gpu: {value}\n")

    with pytest.raises(UnsupportedError, match="no package for `gpu`, which component `x` asks"):
        real_names({"gpu": "component `x`"}, DEBIAN, beside)


def test_a_file_beside_cluster_yaml_adds_to_ours_name_by_name(table):
    beside = table("debian", "nfs-server: [unfs3]\n")

    found = real_names({"nfs-server": "me", "parallel-ssh": "me"}, DEBIAN, beside)

    assert list(found) == ["unfs3", "pssh"]


@pytest.mark.parametrize("value", ["word", "[1]", "['../x']", "[--option]", "{a: b}", "['a b']"])
def test_a_table_that_is_not_valid_is_refused_with_its_place(table, value):
    beside = table("debian", f"x: [yy]\nbad: {value}\n")

    with pytest.raises(ConfigError) as caught:
        real_names({"x": "me"}, DEBIAN, beside)

    assert caught.value.diagnostics[0].line == 2


def test_every_shipped_table_is_valid():
    for facts in (DEBIAN, os("raspbian", "12", ("debian",)), os("ubuntu", "24.04", ("debian",))):
        assert real_names({"stress": "me"}, facts) == {"stress": "me"}
