"""A cluster's head over an image laid out like Fedora Minimal 43: built by the command, read back by other tools."""

from __future__ import annotations

import json
import re

import over_vendor
import pytest
from fixtures import fedora
from fixtures.card import SECTOR, tool
from over_vendor import PSK
from typer.testing import CliRunner

from piimage.cli.main import app
from piimage.distros import boot_loader

CARD = fedora.minimal(fedora.NEW)
ENTRY = f"/loader/entries/{'0' * 31}f-{fedora.NEW.kernel}.conf"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The image imported as a base, and node 0 built over it."""
    home = tmp_path_factory.mktemp("fedora")
    over_vendor.build(home, CARD, over_vendor.HEAD)
    return home


@pytest.fixture(scope="module")
def ask(home):
    """What debugfs says to a command about the root, or with `middle` about the boot partition."""

    def asked(command, start=CARD.layout.root_start):
        place = f"{home / 'dist/hats/n0.img'}?offset={start * SECTOR}"
        return tool("debugfs", "-R", command, place).decode()

    return asked


def names(ask, folder):
    lines = ask(f'ls -p "{folder}"').splitlines()
    return [line.split("/")[5] for line in lines if line.count("/") == 7]


def test_all_file_systems_are_clean(home):
    image = home / "dist/hats/n0.img"
    for start in (CARD.layout.root_start, CARD.layout.middle_start):
        tool("e2fsck", "-fn", f"{image}?offset={start * SECTOR}")


def test_nothing_is_wrong_with_the_card(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("PIIMAGE_CACHE", str(home / "cache"))
    monkeypatch.setenv("LAB_PSK", PSK)

    said = CliRunner().invoke(app, ["verify", "dist/hats", "--json", "--quiet"])

    (verdict,) = json.loads(said.stdout)
    assert (verdict["name"], verdict["findings"], verdict["notes"]) == ("n0", [], [])


def test_the_entry_that_is_started_has_the_country_and_all_it_had(ask):
    text = ask(f"cat {ENTRY}", CARD.layout.middle_start)

    before = boot_loader.options(CARD.middle[ENTRY].content.decode())
    assert boot_loader.options(text) == f"{before} cfg80211.ieee80211_regdom=NO"


def test_nothing_was_written_below_a_mount_point(ask):
    assert set(names(ask, "/boot")) <= {".", "..", ""}


def test_nobody_waits_for_initial_setup_and_there_is_still_no_fstab(ask):
    assert "/dev/null" in ask("stat /etc/systemd/system/initial-setup.service")
    for target in ("multi-user", "graphical"):
        wanted = names(ask, f"/etc/systemd/system/{target}.target.wants")
        assert "initial-setup.service" not in wanted
    assert "fstab" not in names(ask, "/etc")


def test_every_file_that_was_written_has_the_label_of_libselinux(home, ask, tmp_path):
    """Held against matchpathcon: all that the fixture, whose files have no labels, did not have."""
    for suffix, text in (("", fedora.CONTEXTS), (".homedirs", fedora.HOMES)):
        (tmp_path / f"file_contexts{suffix}").write_text(text)
    written = over_vendor.planned(home)
    assert len(written) > 100

    for path, kind in written.items():
        said = ask(f"ea_get {path} security.selinux")
        label = re.search(r"\w+:object_r:\w+:s0", said)
        argv = ("matchpathcon", "-n", "-f", str(tmp_path / "file_contexts"), "-m", kind, path)
        assert label, path
        assert label[0] == tool(*argv).decode().strip(), path


def test_the_original_is_as_it_was(home):
    text = tool(
        "debugfs",
        "-R",
        f"cat {ENTRY}",
        f"{home / 'vendor.img'}?offset={CARD.layout.middle_start * SECTOR}",
    )

    assert text == CARD.middle[ENTRY].data
