"""MPI settings by flavour, release and architecture, the roster, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace

import phony_facts as phony
import pytest
from delta_files import file_at

from piimage.cluster import Mpi, Share, Ssh
from piimage.components import mpi, mpi_mpich, roster, slots, smoke
from piimage.delta import Symlink
from piimage.errors import UnsupportedError
from piimage.facts import OsRelease
from piimage.plan import plan

#: Debian's file, which ends without a newline.
PARAMETERS = "btl_base_warn_component_unused=0\nbtl = ^uct,openib,ofi\nosc = ^ucx,pt2pt"
PRTE = "# See prte_info for a list\n"
OPENMPI = Mpi(flavour="openmpi", slots=4)
MPICH = Mpi(flavour="mpich", slots=2)


def with_openmpi(version="5.0.7-1", directory="/etc/openmpi", parameters=PARAMETERS):
    files = {
        directory: phony.folder(),
        f"{directory}/openmpi-mca-params.conf": phony.text(parameters),
    }
    if version.startswith("5"):
        files[f"{directory}/prte-mca-params.conf"] = phony.text(PRTE)
    base = phony.with_files(phony.debian(), files)
    return replace(base, packages={**base.packages, "openmpi-bin": version})


def with_mpich(**packages):
    base = phony.with_files(phony.debian(), {"/etc/environment": phony.text("EDITOR=vi")})
    found = {**base.packages, "mpich": "4.3.0+really4.2.1-1", **packages}
    return replace(base, packages=found)


def image(facts, *, flavour=OPENMPI, role=phony.HEAD, **more):
    return mpi.image(phony.cluster(mpi=flavour, **more), role, facts)


def content(part, path):
    return file_at(part.delta.entries, path).content.decode()


def test_packages_by_flavour_and_role():
    cluster = phony.cluster(mpi=OPENMPI)

    assert mpi.packages(cluster, phony.WORKER) == ("mpi-openmpi",)
    assert mpi.packages(cluster, phony.HEAD) == ("mpi-openmpi", "mpi-openmpi-dev")
    assert mpi.packages(phony.cluster(mpi=MPICH), phony.WORKER) == ("mpi-mpich",)
    assert mpi.packages(phony.cluster(), phony.HEAD) == ()


def test_without_mpi_nothing_is_written():
    assert len(mpi.image(phony.cluster(), phony.HEAD, phony.debian()).delta) == 0
    cluster = phony.cluster()
    assert not mpi.stamp(cluster, cluster.nodes[0], phony.debian(), phony.secrets(cluster)).slots


def test_openmpi_5_is_held_to_the_wire_in_lines_of_their_own():
    part = image(with_openmpi())

    assert content(part, "/etc/openmpi/openmpi-mca-params.conf") == (
        PARAMETERS + "\nbtl_tcp_if_include = 10.1.10.0/24\n"
    )
    assert content(part, "/etc/openmpi/prte-mca-params.conf") == (
        PRTE + "prte_if_include = 10.1.10.0/24\n"
        "prte_default_hostfile = /etc/piimage/hostfile\n"
        "plm_ssh_no_tree_spawn = 1\n"
    )


def test_openmpi_4_has_other_names_and_one_file():
    part = image(with_openmpi("4.1.4-3"))

    assert "/etc/openmpi/prte-mca-params.conf" not in part.delta.entries
    lines = content(part, "/etc/openmpi/openmpi-mca-params.conf").splitlines()
    assert lines[-4:] == [
        "btl_tcp_if_include = 10.1.10.0/24",
        "oob_tcp_if_include = 10.1.10.0/24",
        "orte_default_hostfile = /etc/piimage/hostfile",
        "plm_rsh_no_tree_spawn = 1",
    ]


def test_where_all_reach_all_they_start_each_other():
    part = image(with_openmpi(), ssh=Ssh(trust="mesh"))

    assert "no_tree_spawn" not in content(part, "/etc/openmpi/prte-mca-params.conf")


def test_a_setting_of_the_base_does_not_stand_beside_ours():
    part = image(with_openmpi(parameters="btl_tcp_if_include = lo\n"))

    assert content(part, "/etc/openmpi/openmpi-mca-params.conf") == (
        "#btl_tcp_if_include = lo\nbtl_tcp_if_include = 10.1.10.0/24\n"
    )


def test_fedoras_directory_is_read_from_the_base():
    part = image(with_openmpi(directory="/etc/openmpi-aarch64"))

    assert "/etc/openmpi-aarch64/prte-mca-params.conf" in part.delta.entries


def test_mpich_finds_its_hosts_by_the_environment_and_its_wire_at_boot():
    part = image(with_mpich(libucx0="1.18.1"), flavour=MPICH)

    assert content(part, "/etc/environment") == (
        "EDITOR=vi\nHYDRA_HOST_FILE=/etc/piimage/hostfile\n"
    )
    assert part.delta.entries["/etc/ucx/ucx.conf"] == Symlink("/run/piimage/ucx.conf")
    assert part.enable == ("piimage-wire.service",)
    assert "ExecStart=/bin/sh /usr/lib/piimage/wire\n" in content(
        part, "/etc/systemd/system/piimage-wire.service"
    )


def test_mpich_on_32_bits_needs_no_unit():
    part = image(replace(with_mpich(), architecture="armhf"), flavour=MPICH)

    assert part.enable == ()
    assert "/etc/ucx/ucx.conf" not in part.delta.entries


@pytest.mark.parametrize(
    ("flavour", "expected"),
    [(OPENMPI, "node0 slots=4\nnode1 slots=4\n"), (MPICH, "node0:2\nnode1:2\n")],
)
def test_hostfile_is_of_the_flavours_syntax(flavour, expected):
    cluster = phony.cluster(count=2, mpi=flavour)

    stamped = mpi.stamp(cluster, cluster.nodes[1], phony.debian(), phony.secrets(cluster))

    assert stamped.slots == {"/etc/piimage/hostfile": expected.encode()}


@pytest.mark.parametrize(
    ("facts", "flavour", "words"),
    [
        (phony.debian(), OPENMPI, "has no `openmpi`"),
        (with_openmpi(), MPICH, "holds `openmpi` besides `mpich`"),
        (with_mpich(**{"openmpi-bin": "5.0.7-1"}), OPENMPI, "holds `mpich` besides `openmpi`"),
        (replace(phony.debian(), packages={"openmpi": "5"}), OPENMPI, "no openmpi-mca-params"),
    ],
)
def test_a_base_that_cannot_is_refused(facts, flavour, words):
    with pytest.raises(UnsupportedError, match=words):
        image(facts, flavour=flavour)


@pytest.mark.parametrize(
    ("release", "architecture", "refused"),
    [
        (OsRelease(id="debian", version_id="13"), "armhf", True),
        (OsRelease(id="raspbian", version_id="13"), "armhf", True),
        (OsRelease(id="raspbian", version_id="12"), "armhf", False),
        (OsRelease(id="ubuntu", version_id="24.04", id_like=("debian",)), "armhf", False),
        (OsRelease(id="debian", version_id="13"), "arm64", False),
    ],
)
def test_openmpi_for_32_bits_ends_with_debian_12(release, architecture, refused):
    facts = replace(with_openmpi(), os=release, architecture=architecture)

    if not refused:
        assert image(facts).delta
        return
    with pytest.raises(UnsupportedError, match="has no Open MPI for armhf") as caught:
        image(facts)
    assert "mpich" in caught.value.hint


def bookworm(facts):
    return replace(facts, os=OsRelease(id="debian", version_id="12", codename="bookworm"))


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        (replace(with_openmpi(), architecture="armhf"), "arm64 trixie openmpi 5.0.7 and armhf"),
        (bookworm(with_openmpi()), "and arm64 bookworm"),
        (with_openmpi("5.0.8-1"), r"and arm64 trixie openmpi 5\.0\.8"),
    ],
)
def test_roles_on_bases_that_differ_are_refused(worker, words):
    cluster = phony.cluster(mpi=OPENMPI)

    with pytest.raises(UnsupportedError, match=words):
        mpi.refuse_mixed(cluster, {phony.HEAD: with_openmpi(), phony.WORKER: worker})


def test_roles_on_bases_that_fit_are_not_refused():
    same = {phony.HEAD: with_openmpi(), phony.WORKER: with_openmpi("5.0.7-1+b1")}

    mpi.refuse_mixed(phony.cluster(mpi=OPENMPI), same)
    mpi.refuse_mixed(
        phony.cluster(), {**same, phony.WORKER: replace(phony.debian(), architecture="armhf")}
    )


@pytest.mark.parametrize(
    ("facts", "flavour", "expected", "said"),
    [
        (with_openmpi(), OPENMPI, r"5\.0\.7", "mpirun (Open MPI) 5.0.7\n"),
        (
            with_mpich(),
            MPICH,
            r"4\.2\.1",
            "HYDRA build details:\n    Version:                                 4.2.1\n",
        ),
    ],
)
def test_the_promise_about_mpirun_is_what_it_says(facts, flavour, expected, said):
    import re  # noqa: PLC0415 -- only here

    (check, *_) = image(facts, flavour=flavour).checks

    assert check.argv == ("mpirun", "--version")
    assert expected in check.expect
    assert re.search(check.expect, said)
    assert not re.search(check.expect, said.replace("5.0.7", "4.1.4").replace("4.2.1", "4.0.2"))


def run_wire(tmp_path, outputs, **more):
    """The boot script with an `ip` that says each of `outputs` in turn."""
    tools = {
        "hostname": "echo node1",
        "getent": "echo '10.1.10.241     node1.lab node1'",
        "sleep": ":",
        "ip": f'n=$(cat {tmp_path}/n); echo $((n + 1)) >{tmp_path}/n; cat "{tmp_path}/out$n"',
    }
    for name, body in tools.items():
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    (tmp_path / "n").write_text("0")
    for number, text in enumerate(outputs):
        (tmp_path / f"out{number}").write_text(text)
    part = image(with_mpich(libucx0="1"), flavour=MPICH)
    script = content(part, "/usr/lib/piimage/wire").replace("/run/piimage", str(tmp_path / "run"))
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", script], check=True, timeout=20, env={"PATH": path})
    return (tmp_path / "run/ucx.conf").read_text()


WIFI = "3: wlan0    inet 192.168.7.3/24 brd 192.168.7.255 scope global wlan0\n"
WIRE = "2: end0    inet 10.1.10.241/24 brd 10.1.10.255 scope global end0\n"


def test_the_wire_is_the_interface_with_the_nodes_address(tmp_path):
    assert run_wire(tmp_path, [WIFI + WIRE]) == "UCX_NET_DEVICES=end0\n"


def test_a_cable_that_comes_later_is_waited_for(tmp_path):
    near = WIRE.replace("10.1.10.241", "10.1.10.24")
    assert run_wire(tmp_path, ["", WIFI, near, WIFI + WIRE]) == "UCX_NET_DEVICES=end0\n"


def test_roster_says_who_is_where():
    share = Share(path="/srv/cluster", server="node1")
    found = roster.roster(phony.cluster(count=2, mpi=MPICH, shares=(share,)))

    assert found == {
        "cluster": "pico5",
        "nodes": [
            {"name": "node0", "address": "10.1.10.240", "number": 0, "role": "head", "slots": 2},
            {"name": "node1", "address": "10.1.10.241", "number": 1, "role": "worker", "slots": 2},
        ],
        "head": "node0",
        "user": "federico",
        "uid": 1000,
        "gid": 1000,
        "subnet": "10.1.10.0/24",
        "gateway": None,
        "shares": [{"path": "/srv/cluster", "server": "node1", "address": "10.1.10.241"}],
        "mpi": {"flavour": "mpich", "slots": 2},
    }
    assert roster.roster(phony.cluster())["mpi"] is None


@pytest.mark.parametrize("count", [1, 5, 64, 1000])
def test_roster_and_hostfile_fit_their_slots(count):
    cluster = phony.cluster(count=count, mpi=Mpi(slots=1024))
    long = tuple(replace(node, name="n" * 59 + f"{node.number:04}") for node in cluster.nodes)
    cluster = replace(cluster, nodes=long, shares=(Share(path="/srv/x", server=long[0].name),))

    text = json.dumps(roster.roster(cluster), indent=1)

    assert len(text) < slots.cluster(cluster).size
    assert len(mpi_mpich.hostfile(cluster)) < slots.hostfile(cluster).size


def test_a_whole_plan_with_mpi():
    cluster = phony.cluster(mpi=replace(OPENMPI, smoke_at_boot=True))
    facts = with_openmpi()
    node = cluster.nodes[0]

    variant = plan.plan_variant(cluster, node.role, facts)
    stamped = plan.plan_stamp(cluster, node, facts, variant, "f" * 64, phony.secrets(cluster))

    assert {slots.HOSTFILE, slots.CLUSTER} <= set(stamped.slots)
    assert json.loads(stamped.slots[slots.CLUSTER])["head"] == "node0"
    enabled = variant.delta.entries[
        "/etc/systemd/system/multi-user.target.wants/piimage-smoke.service"
    ]
    assert enabled == Symlink("/etc/systemd/system/piimage-smoke.service")


def test_smoke_test_is_on_the_head_alone():
    cluster = phony.cluster()
    part = smoke.image(cluster, phony.HEAD, phony.debian())

    assert file_at(part.delta.entries, smoke.COMMAND).mode == 0o755
    assert {"main.py", "probe.py", "collective.c", "smoke.h"} <= {
        path.rpartition("/")[2] for path in part.delta.entries
    }
    assert part.enable == ()
    assert len(smoke.image(cluster, phony.WORKER, phony.debian()).delta) == 0


def test_the_unit_runs_the_test_as_the_user_and_keeps_its_report():
    cluster = phony.cluster(mpi=Mpi(smoke_at_boot=True))
    text = content(
        smoke.image(cluster, phony.HEAD, phony.debian()),
        "/etc/systemd/system/piimage-smoke.service",
    )

    assert "\nUser=federico\n" in text
    assert "ConditionPathExists=!/var/lib/piimage/smoke.json\n" in text
    assert "\nType=exec\n" in text
