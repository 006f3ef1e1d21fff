"""Which kernel command line is in force."""

from __future__ import annotations

from dataclasses import replace

import phony_facts as phony
import pytest
from delta_files import file_at
from fixtures import ubuntu
from fixtures.facts_of import facts_of

from piimage import stamping
from piimage.boot import card as boot_card
from piimage.boot.disk import Disk
from piimage.distros.boot_loader import command_line
from piimage.distros.firmware_config import (
    cmdline_name,
    cmdline_path,
    config,
    of_some_boards,
    prefix,
    whole,
)
from piimage.errors import UnsupportedError
from piimage.plan import plan, recipe

STAGED = (
    "[all]\nos_prefix=current/\nkernel=vmlinuz\n[tryboot]\nos_prefix=new/\n[pi4]\narm_boost=1\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "cmdline.txt"),
        ("arm_64bit=1\n", "cmdline.txt"),
        ("[all]\ncmdline=cmdline.txt\n", "cmdline.txt"),
        (STAGED, "current/cmdline.txt"),
        ("os_prefix=current/\n", "current/cmdline.txt"),
        ("#os_prefix=current/\n", "cmdline.txt"),
        ("[pi5]\nos_prefix=five/\n[all]\n", "cmdline.txt"),
        ("[pi5]\n[ALL]\nos_prefix = b/  # the second set\n", "b/cmdline.txt"),
        ("os_prefix=a/\nos_prefix=b/\n", "b/cmdline.txt"),
        ("os_prefix=../../a/\ncmdline=/x.txt\n", "a/x.txt"),
    ],
)
def test_the_command_line_in_force(text, expected):
    assert cmdline_name(text) == expected


def test_only_the_prefix_of_every_boot_counts():
    assert prefix(STAGED) == "current/"
    assert prefix("[tryboot]\nos_prefix=new/\n") == ""


def staged():
    """A base with two sets of boot files, and a command line that nobody reads."""
    return phony.with_files(
        phony.debian(),
        {
            "/boot/firmware/config.txt": phony.text(STAGED, 0o755),
            "/boot/firmware/cmdline.txt": phony.text("the wrong one\n", 0o755),
            "/boot/firmware/current": phony.folder(),
            "/boot/firmware/current/cmdline.txt": phony.text("root=LABEL=writable\n", 0o755),
        },
    )


def test_tokens_go_to_the_command_line_that_is_read():
    facts, cluster = staged(), phony.cluster()
    nodes = list(cluster.nodes)
    nodes[0] = replace(nodes[0], cmdline=("isolcpus=3",))
    cluster = replace(cluster, nodes=tuple(nodes))

    variant = plan.plan_variant(cluster, cluster.nodes[0].role, facts)
    stamp = plan.plan_stamp(
        cluster, cluster.nodes[0], facts, variant, "f" * 64, phony.secrets(cluster)
    )

    assert cmdline_path(facts) == "/boot/firmware/current/cmdline.txt"
    changed = file_at(variant.delta.entries, "/boot/firmware/current/cmdline.txt")
    assert changed.content == b"root=LABEL=writable cfg80211.ieee80211_regdom=IT\n"
    assert "/boot/firmware/cmdline.txt" not in variant.delta.entries
    assert stamp.firmware["current/cmdline.txt"].endswith(b"=IT isolcpus=3\n")
    assert "cmdline.txt" not in stamp.firmware


def test_the_disk_signature_is_left_to_a_command_line_that_names_it():
    facts = staged()
    assert not stamping._names_partuuid(facts)

    named = phony.with_files(
        facts,
        {"/boot/firmware/current/cmdline.txt": phony.text("root=PARTUUID=1a2b3c4d-02\n", 0o755)},
    )

    assert stamping._names_partuuid(named)


@pytest.mark.parametrize(
    "text",
    [
        "root=LABEL=writable rw\n\n# was root=/dev/sda9 init=/bin/sh\n",
        "root=LABEL=writable rw\r\n",
        "\nroot=LABEL=writable rw\nresize\n",
    ],
)
def test_what_the_firmware_does_not_read_of_a_command_line_comes_to_no_power(text):
    """Only its first line is handed over; a carriage return would be part of the last token."""
    facts = phony.with_files(
        phony.debian(), {"/boot/firmware/cmdline.txt": phony.text(text, 0o755)}
    )
    cluster = phony.cluster()

    for wifi, added in ((cluster.wifi, " cfg80211.ieee80211_regdom=IT"), (None, "")):
        made = replace(cluster, wifi=wifi)
        entries = plan.plan_variant(made, made.nodes[0].role, facts).delta.entries
        line = file_at(entries, "/boot/firmware/cmdline.txt").content.decode()
        assert line == f"root=LABEL=writable rw{added}\n"
    assert command_line(facts) == "root=LABEL=writable rw"


def test_capital_letters_on_a_fat_are_no_other_names():
    """As some programs of Windows and DOS write them; the firmware and Linux open them all the same."""
    card = ubuntu.resolute()
    boot = {
        name.replace("current/", "Current/").replace("e.txt", "E.TXT"): data
        for name, data in card.boot.items()
    }
    boot["CONFIG.TXT"] = boot.pop("config.txt").replace(b"current/", b"CURRENT/")
    boot["User-Data"] = boot.pop("user-data")
    boot["SSH"] = b""
    plain, odd = facts_of(card), facts_of(replace(card, boot=boot))

    assert "Current/cmdlinE.TXT" in boot
    assert cmdline_path(odd) == "/boot/firmware/current/cmdline.txt"
    assert command_line(odd) == command_line(plain)
    assert {p: f for p, f in odd.files.items() if p != "/boot/firmware/ssh"} == {
        **plain.files,
        "/boot/firmware/config.txt": odd.files["/boot/firmware/config.txt"],
    }
    assert odd.has("/boot/firmware/ssh")


def elsewhere():
    """A card whose config.txt includes another file, and that one names a command line of another name and place."""
    card = ubuntu.noble()
    boot = dict(card.boot)
    boot["sets/B.line"] = boot["cmdline.txt"].replace(b" splash", b"") + b"# not this\n"
    boot |= {"cmdline.txt": b"nobody reads this\n", "initrd.img": b"compressed"}
    boot["config.txt"] += b"[all]\r\ninclude Extra.cfg  # more\r\ninclude nothing.txt\n"
    boot["Extra.cfg"] = b"dtparam=spi=on\n[none]\ncmdline=x\n[all]\ncmdline=sets/B.line\n"
    return replace(card, boot=boot)


def test_what_config_txt_includes_counts_and_the_command_line_may_have_any_name():
    card = elsewhere()
    facts, cluster = facts_of(card), phony.cluster()
    nodes = (replace(cluster.nodes[0], cmdline=("isolcpus=3",)), *cluster.nodes[1:])
    cluster = replace(cluster, nodes=nodes)

    variant = plan.plan_variant(cluster, nodes[0].role, facts)
    secrets = phony.secrets(cluster, passwords={})
    stamp = plan.plan_stamp(cluster, nodes[0], facts, variant, "f" * 64, secrets)

    assert cmdline_path(facts) == "/boot/firmware/sets/b.line"
    before = card.boot["sets/B.line"].partition(b"\n")[0]
    line = file_at(variant.delta.entries, "/boot/firmware/sets/b.line").content
    assert line == before + b" cfg80211.ieee80211_regdom=IT\n"
    assert stamp.firmware["sets/b.line"] == line.rstrip() + b" isolcpus=3\n"
    assert "/boot/firmware/cmdline.txt" not in variant.delta.entries
    assert "dtparam=spi=on" in config(facts)
    assert facts.has("/boot/firmware/sets")


def test_the_same_command_line_is_rehearsed(tmp_path):
    card = elsewhere()
    image = card.write(tmp_path / "card.img")

    found = boot_card.read_card(Disk(image=image, build=None))

    assert found.cmdline.encode() == card.boot["sets/B.line"].partition(b"\n")[0]


def test_files_that_include_each_other_come_to_an_end():
    texts = {
        "config.txt": "include a.txt\ninclude Config.txt\n" * 300 + "cmdline=x.txt\n",
        "a.txt": "include config.txt\ninclude b.txt\n" * 300,
        "b.txt": "include a.txt\ncmdline=b.txt\n" * 300,
    }
    endless = whole(lambda name: f"include {name[:-4]}x.txt\n")

    assert cmdline_name(whole(lambda name: texts.get(name, ""))) == "x.txt"
    assert cmdline_name(endless) == "cmdline.txt"


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("[pi4]\ncmdline=four.txt\n[all]\n", "pi4"),
        ("cmdline=cmdline.txt\n[Pi5]\nos_prefix=five/\n", "pi5"),
        ("[gpio4=1]\ncmdline=rescue.txt\n", "gpio4=1"),
        (STAGED, ""),
        ("[pi4]\ncmdline=cmdline.txt\n", ""),
        ("cmdline=a.txt\n[pi4]\ncmdline=a.txt\n[none]\ncmdline=b.txt\n", ""),
    ],
)
def test_a_command_line_of_some_boards_alone_is_refused(text, section):
    facts = phony.with_files(
        phony.debian(),
        {
            "/boot/firmware/config.txt": phony.text(text),
            "/boot/firmware/a.txt": phony.text("root=LABEL=writable\n"),
            "/boot/firmware/current/cmdline.txt": phony.text("root=LABEL=writable\n"),
        },
    )
    cluster = phony.cluster()

    assert [name for name, _ in of_some_boards(text)] == [section][: bool(section)]
    if not section:
        plan.plan_variant(cluster, phony.HEAD, facts)
        recipe.refuse(cluster, cluster.roles, facts)
        return
    for refused in (
        lambda: plan.plan_variant(cluster, phony.HEAD, facts),
        lambda: recipe.refuse(cluster, cluster.roles, facts),
    ):
        with pytest.raises(UnsupportedError, match=rf"under `\[{section}\]`"):
            refused()
