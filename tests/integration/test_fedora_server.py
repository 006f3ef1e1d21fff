"""A cluster's head over an image laid out like Fedora Server 43: built by the command, read by LVM's and XFS's tools.

The image has other volumes than the root's in its group, and its metadata go over the end of their ring.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import over_vendor
import pytest
from fixtures import fedora, fedora_server
from fixtures.card import MIB, tool
from over_vendor import PSK
from typer.testing import CliRunner

from piimage.cli.main import app
from piimage.components import growth
from piimage.disk import rootfs
from piimage.disk.guestfs import Appliance
from piimage.disk.table import read_table
from piimage.distros import boot_loader
from piimage.progress import Quiet

GROUP = fedora_server.BESIDE
CARD = fedora_server.server(43, group=GROUP, root_size=320 * MIB, boot_size=320 * MIB)
KERNEL = fedora_server.release(43, GROUP).kernel
ENTRY = f"/loader/entries/{'0' * 31}f-{KERNEL}.conf"
#: What is asked of LVM and XFS before anything is mounted: each answer ends with the status. There the disk may be
#: `sda` or `sdb`.
QUESTIONS = {
    "pvs": "pvs --noheadings -o pv_name,vg_name,pv_uuid,pe_start --units b",
    "lvs": "lvs --noheadings -o vg_name,lv_name,lv_size,lv_uuid,seg_type,seg_start,devices --units b",
    "vgck": f"vgck {GROUP.name}",
    "root": f"xfs_repair -n /dev/{GROUP.name}/{GROUP.root}",
    "boot": f"xfs_repair -n $(blkid -U {fedora.BOOT_UUID})",
}


@dataclass(frozen=True)
class Seen:
    """What the appliance says of the card: answers to `QUESTIONS`, labels by path, texts and names."""

    answers: dict[str, str]
    labels: dict[str, str]
    entry: str
    hidden: list[str]
    etc: list[str]
    links: dict[str, str]
    shadow: dict[str, int]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The image imported as a base, and node 0 built over it."""
    home = tmp_path_factory.mktemp("server")
    over_vendor.build(home, CARD, over_vendor.HEAD)
    return home


@pytest.fixture(scope="module")
def written(home):
    """What is made or changed outside /boot."""
    return over_vendor.planned(home)


@pytest.fixture(scope="module")
def card(home):
    """The image written by its bmap, and that alone, on a card that holds something else everywhere."""
    image, card = home / "dist/hats/n0.img", home / "card"
    with card.open("wb") as file:
        for _ in range(0, image.stat().st_size, MIB):
            file.write(b"\xa5" * MIB)
        file.truncate(image.stat().st_size)
    tool("bmaptool", "-q", "copy", "--bmap", str(image.with_suffix(".bmap")), str(image), str(card))
    yield card
    card.unlink()


@pytest.fixture(scope="module")
def seen(card, written) -> Seen:
    """One launch of the appliance over the finished card."""
    with Appliance(card, progress=Quiet(), readonly=True) as appliance:
        answers = {
            name: appliance.script(f"{question} 2>&1; echo status $?")
            for name, question in QUESTIONS.items()
        }
        root = f"/dev/{GROUP.name}/{GROUP.root}"
        appliance.call("mount_ro", root, "/")
        hidden = appliance.call("ls", "/boot")
        appliance.call("mount_ro", "/dev/sda2", "/boot")
        units = "/etc/systemd/system"
        return Seen(
            answers=answers,
            labels={path: _label(appliance, path) for path in written},
            entry=appliance.call("cat", f"/boot{ENTRY}"),
            hidden=hidden,
            etc=appliance.call("ls", "/etc"),
            links={
                name: appliance.call("readlink", f"{units}/{name}")
                for name in (
                    "initial-setup.service",
                    "multi-user.target.wants/sshd.service",
                    f"multi-user.target.wants/{growth.UNIT}",
                )
            },
            shadow=appliance.call("lstatns", "/etc/shadow"),
        )


def _label(appliance: Appliance, path: str) -> str:
    found = {x["attrname"]: x["attrval"] for x in appliance.call("lgetxattrs", path)}
    label = found.get("security.selinux", b"")
    return (label if isinstance(label, str) else label.decode()).rstrip("\0")


def test_lvm_finds_the_group_as_it_was_in_the_vendors_image(seen: Seen):
    layout = CARD.layout
    (volume,) = [line.split() for line in seen.answers["pvs"].splitlines()[:-1]]
    found = {line.split()[1]: line.split() for line in seen.answers["lvs"].splitlines()[:-1]}

    assert (volume[0][-1], volume[1], volume[3]) == ("3", GROUP.name, f"{GROUP.first}B")
    assert found.keys() == {"swap", GROUP.root, "home"}
    assert {name: line[2] for name, line in found.items()} == {
        "swap": f"{12 * GROUP.extent}B",
        "root": f"{layout.root_size}B",
        "home": f"{5 * GROUP.extent}B",
    }
    assert found[GROUP.root][-1] == f"{volume[0]}(15)"
    assert {line[4] for line in found.values()} == {"linear"}
    assert seen.answers["vgck"].strip() == "status 0"


def test_all_file_systems_are_clean(seen: Seen):
    for name in ("root", "boot"):
        assert seen.answers[name].splitlines()[-1] == "status 0", seen.answers[name]
        assert "Phase 7" in seen.answers[name]


def test_nothing_is_wrong_with_the_card(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("PIIMAGE_CACHE", str(home / "cache"))
    monkeypatch.setenv("LAB_PSK", PSK)

    said = CliRunner().invoke(app, ["verify", "dist/hats", "--json", "--quiet"])

    (verdict,) = json.loads(said.stdout)
    assert (verdict["name"], verdict["findings"], verdict["notes"]) == ("n0", [], [])


def test_the_entry_that_is_started_has_the_country_and_all_it_had(seen: Seen):
    before = boot_loader.options(CARD.middle[ENTRY].content.decode())

    assert f"root={GROUP.device} " in before
    assert boot_loader.options(seen.entry) == f"{before} cfg80211.ieee80211_regdom=NO"


def test_nothing_was_written_below_a_mount_point(seen: Seen):
    assert seen.hidden == []


def test_nobody_waits_for_initial_setup_ssh_is_there_and_the_root_will_grow(seen: Seen):
    assert seen.links["initial-setup.service"] == "/dev/null"
    assert seen.links["multi-user.target.wants/sshd.service"].endswith("/sshd.service")
    assert "fstab" in seen.etc
    assert seen.links[f"multi-user.target.wants/{growth.UNIT}"].endswith(f"/{growth.UNIT}")
    assert (seen.shadow["st_mode"] & 0o7777, seen.shadow["st_uid"], seen.shadow["st_gid"]) == (
        0o640,
        0,
        42,
    )


def test_every_file_that_was_written_has_the_label_of_libselinux(written, seen: Seen, tmp_path):
    """Held against matchpathcon: all that the fixture, whose files have no labels, did not have."""
    for suffix, text in (("", fedora.CONTEXTS), (".homedirs", fedora.HOMES)):
        (tmp_path / f"file_contexts{suffix}").write_text(text)
    assert len(written) > 100

    for path, kind in written.items():
        argv = ("matchpathcon", "-n", "-f", str(tmp_path / "file_contexts"), "-m", kind, path)
        assert seen.labels[path] == tool(*argv).decode().strip(), path


def test_the_original_is_as_it_was(home):
    image = home / "vendor.img"
    boot = read_table(image).partition(2)

    assert rootfs.read_files(image, boot.start, [ENTRY])[ENTRY] == CARD.middle[ENTRY].data
