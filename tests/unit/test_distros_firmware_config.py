"""Which kernel command line is in force."""

from __future__ import annotations

from dataclasses import replace

import phony_facts as phony
import pytest
from delta_files import file_at
from fixtures import ubuntu
from fixtures.facts_of import facts_of

from piimage import stamping
from piimage.distros.boot_loader import command_line
from piimage.distros.firmware_config import cmdline_name, cmdline_path, prefix
from piimage.plan import plan

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
