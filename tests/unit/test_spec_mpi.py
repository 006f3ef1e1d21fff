"""One MPI program must run on all nodes: what validate can know of it once the bases are here."""

from __future__ import annotations

from dataclasses import replace

import phony_facts as phony
import pytest

from piimage import resolve
from piimage.errors import ConfigError
from piimage.facts import OsRelease

TEXT = """\
version: 1
name: lab
users: [{name: ada, uid: 1001}]
network: {wired: {subnet: 10.1.10.0/24}}
MPI
ROLES
nodes: [{name: a, role: head}, {name: b}, {name: c}]
"""
TRIXIE = phony.debian()
ARMHF = replace(TRIXIE, architecture="armhf")
RASPIOS = replace(TRIXIE, os=OsRelease(id="raspbian", version_id="13", codename="trixie"))
BASES = {
    "debian-13": TRIXIE,
    "raspios-13": RASPIOS,
    "armhf": ARMHF,
    "bookworm": replace(TRIXIE, os=OsRelease(id="debian", version_id="12", codename="bookworm")),
}


def told(tmp_path, *, mpi="mpi: {}", roles="roles: {}"):
    path = tmp_path / "cluster.yaml"
    path.write_text(TEXT.replace("MPI", mpi).replace("ROLES", roles))
    try:
        return [d.message for d in resolve.load(path, env={}, facts=BASES.get).diagnostics]
    except ConfigError as error:
        return [f"{d.line}: {d.message}" for d in error.diagnostics]


def test_equal_kinds_are_fine(tmp_path):
    assert told(tmp_path, roles="roles: {head: {base: raspios-13}, worker: {}}") == []


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (
            "roles: {worker: {base: armhf}}",
            "6: the base of b is armhf trixie, that of a is arm64 trixie",
        ),
        (
            "roles: {head: {base: bookworm}}",
            "5: the base of b is arm64 trixie, that of a is arm64 bookworm",
        ),
    ],
)
def test_other_kinds_are_told_where_a_base_is_set(tmp_path, roles, words):
    found = told(tmp_path, mpi="mpi: {flavour: mpich}", roles=roles)

    assert len(found) == 1
    assert words in found[0]


def test_a_base_that_nobody_uses_is_not_compared(tmp_path):
    roles = "base: armhf\nroles: {head: {base: debian-13}, worker: {base: debian-13}}"

    assert told(tmp_path, roles=roles) == []


def test_without_mpi_bases_may_differ(tmp_path):
    assert told(tmp_path, mpi="", roles="roles: {worker: {base: armhf}}") == []


def test_a_node_may_set_its_own_base(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        TEXT.replace("MPI", "mpi: {flavour: mpich}")
        .replace("ROLES", "timezone: Etc/UTC")
        .replace("{name: c}", "{name: c, base: armhf}")
    )

    with pytest.raises(ConfigError) as caught:
        resolve.load(path, env={}, facts=BASES.get)

    (finding,) = caught.value.diagnostics
    assert (finding.code, finding.line) == ("mixed-mpi", 7)


@pytest.mark.parametrize("mpi", ["mpi: {slots: 2}", "mpi: {flavour: openmpi}"])
def test_openmpi_on_32_bits_is_refused_with_the_way_out(tmp_path, mpi):
    roles = "base: armhf\nroles: {worker: {}}"
    (found,) = told(tmp_path, mpi=mpi, roles=roles)

    assert found == "5: Debian GNU/Linux 13 (trixie) has no Open MPI for armhf"
    assert told(tmp_path, mpi="mpi: {flavour: mpich}", roles=roles) == []
