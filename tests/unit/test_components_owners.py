"""The owners of shared files: unit states, the firmware's two files, fstab."""

from __future__ import annotations

import subprocess
from typing import Any

import phony_facts as phony
import pytest
from delta_files import file_at
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.components import firmware, fstab, units
from piimage.components.contribution import Contribution, MountLine
from piimage.delta import Absent, Delta, File, Slot, Symlink
from piimage.errors import ImageError, PiimageError, UnsupportedError

WANTS = "/etc/systemd/system/multi-user.target.wants"
CMDLINE = "/boot/firmware/cmdline.txt"


def states(facts=None, delta=None, **asked):
    fields: list[dict[str, Any]] = [{key: (value,)} for key, value in asked.items()]
    parts = [Contribution(**values) for values in fields]
    return units.entries(parts, delta or Delta(), facts or phony.debian())


def test_enabling_makes_the_links_of_the_install_section():
    found = states(enable="ssh.service")

    link = Symlink("/usr/lib/systemd/system/ssh.service")
    assert found[f"{WANTS}/ssh.service"] == link
    assert found["/etc/systemd/system/sshd.service"] == link


def test_enabling_an_instance_uses_its_template():
    found = states(enable="getty@tty1.service")

    link = found["/etc/systemd/system/getty.target.wants/getty@tty1.service"]
    assert link == Symlink("/usr/lib/systemd/system/getty@.service")


def test_enabling_takes_along_what_also_names():
    found = states(enable="systemd-networkd.service")

    assert b"enable systemd-networkd.socket\n" in found[units.PRESET].content
    assert "/etc/systemd/system/sockets.target.wants/systemd-networkd.socket" in found


def test_a_unit_that_the_delta_ships_can_be_enabled():
    path = "/etc/systemd/system/own.service"
    text = b"[Unit]\nAfter=a\nAfter=b\n[Service]\nExecStart=/x %i\n[Install]\nWantedBy=x.target\n"

    found = states(delta=Delta.of("own", {path: File(text)}), enable="own.service")

    assert found["/etc/systemd/system/x.target.wants/own.service"] == Symlink(path)


def test_disabling_removes_links_under_every_name():
    found = states(disable="chrony.service")

    assert found[f"{WANTS}/chrony.service"] == Absent()


def test_masking_points_to_nowhere_and_unlinks():
    found = states(phony.raspios(), mask="userconfig.service")

    assert found["/etc/systemd/system/userconfig.service"] == Symlink("/dev/null")
    assert found[f"{WANTS}/userconfig.service"] == Absent()


def test_preset_freezes_the_state_of_every_unit():
    lines = states(enable="ssh.service")[units.PRESET].content.decode().splitlines()

    assert "enable ssh.service" in lines
    assert "enable chrony.service" in lines
    assert "disable systemd-networkd-wait-online.service" in lines
    assert not [line for line in lines if "getty@." in line or "firstboot" in line]


def test_opposite_wishes_are_an_error():
    with pytest.raises(PiimageError, match=r"unit `ssh\.service` is to be enabled and disabled"):
        states(enable="ssh.service", disable="ssh.service")


def test_a_unit_that_does_not_exist_is_named():
    with pytest.raises(UnsupportedError, match=r"the base has no unit `no\.service`"):
        states(enable="no.service")


def merged(text, *add, drop=()):
    return firmware.merge_tokens(text, add, drop)


def test_token_of_the_same_key_is_replaced():
    assert merged("a=1 b root=x \n", "a=2") == "b root=x a=2\n"


def test_consoles_add_up_and_the_last_stays_last():
    line = merged("console=tty0 console=ttyS1,115200 rw", "console=ttyAMA0,115200")

    assert line == "console=tty0 console=ttyS1,115200 rw console=ttyAMA0,115200\n"


def test_tokens_are_dropped_by_name_or_by_key():
    assert merged("quiet init=/x splash rw", drop=("quiet", "init")) == "splash rw\n"


@given(
    st.lists(st.from_regex(r"[a-z]{1,3}(=[a-z0-9,]{0,3})?", fullmatch=True), max_size=8),
    st.lists(
        st.from_regex(r"[a-z]{1,3}(=[a-z0-9,]{0,3})?", fullmatch=True), max_size=4, unique=True
    ),
)
def test_merging_is_one_line_idempotent_and_complete(base, add):
    text = merged(" ".join(base) + " \nsecond line\n", *add)

    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert merged(text, *add) == text
    assert set(add) <= set(text.split())


def test_debians_hook_gets_the_tokens_too():
    part = Contribution(cmdline=("a=b",), config_txt=("dtparam=i2c_arm=on",))

    found = firmware.entries([part], phony.debian())

    assert file_at(found, CMDLINE).content.decode().endswith(" rootwait a=b\n")
    assert found["/etc/default/raspi-extra-cmdline"] == Slot(4096, mode=0o644)
    custom = file_at(found, "/etc/default/raspi-firmware-custom").content.decode()
    assert custom == "# added by piimage\n[all]\ndtparam=i2c_arm=on\n"
    stamped = firmware.stamped_cmdline(phony.debian(), ["a=b"], ["c"])
    assert stamped == {"/etc/default/raspi-extra-cmdline": b"a=b c\n"}


def test_a_base_without_the_hook_gets_only_the_firmwares_files():
    facts = phony.with_files(
        phony.debian(), {"/etc/kernel/postinst.d/z50-raspi-firmware": phony.text("#!/bin/sh\n")}
    )

    found = firmware.entries([Contribution(cmdline=("a",), config_txt=("x=1",))], facts)

    assert set(found) == {CMDLINE, "/boot/firmware/config.txt"}
    assert firmware.stamped_cmdline(facts, ["a"], []) == {}


def test_config_lines_escape_the_filters_before_them_and_come_once():
    once = firmware.config_text("a=1\n[pi4]\nb=1", ["x=1"])

    assert once == "a=1\n[pi4]\nb=1\n# added by piimage\n[all]\nx=1\n"
    assert firmware.config_text(once, ["x=1"]) == once


def test_no_command_line_is_an_error_not_a_guess():
    facts = phony.with_files(phony.debian(), {CMDLINE: phony.text("")})

    with pytest.raises(ImageError, match=r"no kernel command line at /boot/firmware/cmdline\.txt"):
        firmware.entries([Contribution(cmdline=("a",))], facts)


def test_mount_replaces_the_line_of_its_mount_point():
    text = phony.debian().text("/etc/fstab")
    mount = MountLine(spec="LABEL=X", mountpoint="/", type="ext4", options=("rw", "noatime"))

    lines = fstab.render(text, [mount]).splitlines()

    assert lines[0] == "LABEL=X\t/\text4\trw,noatime\t0\t0"
    assert len(lines) == 2


def test_untouched_fstab_is_not_written():
    assert fstab.entries([Contribution()], phony.debian()) == {}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("LABEL=X /srv", "2 fields"),
        ("LABEL=X /srv/with space ext4 rw 0 0", "7 fields"),
        ("LABEL=X srv ext4 rw 0 0", "`srv` is no absolute mount point"),
        ("LABEL=X / ext4 rw 0 0", "`/` is mounted twice"),
        ("LABEL=X /srv ext4 rw 0 yes", "single digits"),
    ],
)
def test_bad_lines_of_the_base_are_found(line, problem):
    facts = phony.debian()
    text = phony.text(facts.text("/etc/fstab") + line + "\n")

    with pytest.raises(ImageError, match=f"/etc/fstab line 3: .*{problem}"):
        fstab.entries([Contribution()], phony.with_files(facts, {"/etc/fstab": text}))


paths = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/"),
    min_size=1,
    max_size=8,
)


@settings(max_examples=12, deadline=None)
@given(
    names=st.lists(paths.map(lambda p: p.replace("\x7f", "x")), min_size=1, max_size=8, unique=True)
)
def test_findmnt_reads_back_every_mount_point(names, tmp_path_factory):
    mounts = [
        MountLine(
            spec="10.1.10.240:/srv", mountpoint=f"/srv/{name} x", type="nfs4", options=("nofail",)
        )
        for name in names
    ]
    file = tmp_path_factory.mktemp("fstab") / "fstab"
    file.write_text(fstab.render(phony.debian().text("/etc/fstab"), mounts))

    read = subprocess.run(
        ["findmnt", "--tab-file", file, "--raw", "--noheadings", "-o", "TARGET"],
        capture_output=True,
        check=True,
    )
    verified = subprocess.run(
        ["findmnt", "--verify", "--tab-file", file], capture_output=True, text=True, check=False
    )

    assert len(read.stdout.splitlines()) == len(mounts) + 2
    # The sources are not on this machine, which `--verify` says too: only what it could not read
    # counts.
    assert "0 parse errors" in verified.stderr or verified.returncode == 0, verified.stdout


@pytest.mark.parametrize(
    "mounts", [(), (MountLine(spec="head:/srv", mountpoint="/srv", type="nfs4"),)]
)
def test_windows_line_ends_of_fstab_are_in_no_field(mounts):
    text = "LABEL=a\t/\text4\tdefaults\r\nLABEL=b /boot/firmware vfat defaults 0 2\r\n"
    facts = phony.with_files(phony.debian(), {"/etc/fstab": phony.text(text)})

    found = file_at(
        fstab.entries([Contribution(mounts=mounts)], facts), "/etc/fstab"
    ).content.decode()

    assert found.startswith(text.replace("\r", ""))
    assert "\r" not in found
