"""Which kernel command line is in force."""

from __future__ import annotations

from dataclasses import replace

import phony_facts as phony
import pytest
from delta_files import file_at

from piimage import stamping
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
