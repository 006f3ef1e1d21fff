"""Entries of the boot loader: which one is started, and what becomes of its options."""

from __future__ import annotations

import pytest

from piimage.distros.boot_loader import (
    entries,
    field,
    options,
    with_grub_defaults,
    with_options,
)

ENTRY = "title A\nlinux /k\noptions root=UUID=1 ro $kernelopts\n# a comment\ninitrd /i\n"


def test_the_newest_kernel_is_started_and_the_rescue_never():
    names = ("6.9.12", "6.17.1", "6.17.1-300.fc43", "0-rescue-6.99")
    paths = [f"/boot/loader/entries/abc-{name}.conf" for name in names]

    assert entries([*paths, "/boot/loader/entries.srel", "/etc/x.conf"]) == [
        paths[2], paths[1], paths[0],
    ]  # fmt: skip


def test_options_change_and_nothing_else():
    changed = with_options(ENTRY, lambda text: f"{text} quiet")

    assert options(changed) == "root=UUID=1 ro $kernelopts quiet"
    assert changed == ENTRY.replace("$kernelopts", "$kernelopts quiet")


def test_several_lines_of_options_are_one_command_line():
    entry = "options a\nlinux /k\noptions b c\n"

    assert options(entry) == "a b c"
    assert with_options(entry, str.upper) == "options A B C\nlinux /k\n"


def test_an_entry_without_options_gets_some():
    assert with_options("linux /k\n", lambda _: "quiet\n") == "linux /k\noptions quiet\n"


@pytest.mark.parametrize(("key", "value"), [("linux", "/k"), ("initrd", "/i"), ("devicetree", "")])
def test_fields(key, value):
    assert field(ENTRY, key) == value


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_the_defaults_of_grub(quote):
    text = f"GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX={quote}{'a' if not quote else 'a b'}{quote}\nX=1\n"

    changed = with_grub_defaults(text, lambda tokens: f"{tokens} c")

    assert f'GRUB_CMDLINE_LINUX="{"a" if not quote else "a b"} c"\nX=1\n' in changed
