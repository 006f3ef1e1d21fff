from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.bases.units import ADMIN, VENDOR, install_section, read_units, unit_files
from piimage.facts import FileFact, Unit

FILE = FileFact(kind="file", mode=0o644, uid=0, gid=0)


def link(target):
    return FileFact(kind="link", mode=0o777, uid=0, gid=0, target=target)


def image(**extra):
    """Vendor units `ssh.service`, `getty@.service`, `off.service`, and what a test adds."""
    texts = {
        f"{VENDOR}/ssh.service": "[Unit]\nAlias=no.service\n[Install]\nWantedBy=multi-user.target\n"
        "Alias=sshd.service\n",
        f"{VENDOR}/getty@.service": "[Install]\nWantedBy=getty.target\n",
        f"{VENDOR}/off.service": "[Install]\nRequiredBy=a.target\\\n b.target\nAlso=off.socket\n",
    }
    listing = dict.fromkeys(texts, FILE)
    for path, value in extra.items():
        if isinstance(value, str):
            listing[path], texts[path] = FILE, value
        else:
            listing[path] = value
    return read_units(listing, {path: text.encode() for path, text in texts.items()})


def test_a_unit_that_nothing_links_is_not_enabled():
    assert image()["off.service"] == Unit(
        path=f"{VENDOR}/off.service",
        required_by=("a.target", "b.target"),
        also=("off.socket",),
    )


@pytest.mark.parametrize("kind", ["wants", "requires", "upholds"])
def test_a_link_in_a_pulling_directory_enables(kind):
    path = f"{ADMIN}/multi-user.target.{kind}/ssh.service"

    unit = image(**{path: link(f"{VENDOR}/ssh.service")})["ssh.service"]

    assert (unit.enabled, unit.wanted_by, unit.alias) == (
        True,
        ("multi-user.target",),
        ("sshd.service",),
    )


def test_what_packages_pull_in_is_static():
    path = f"{VENDOR}/multi-user.target.wants/off.service"

    assert not image(**{path: link("../off.service")})["off.service"].enabled


def test_an_alias_link_enables_and_is_a_name_of_its_own():
    units = image(**{f"{ADMIN}/sshd.service": link(f"{VENDOR}/ssh.service")})

    assert units["ssh.service"].enabled
    assert units["sshd.service"] == units["ssh.service"]


def test_the_default_target_enables_nothing():
    units = image(
        **{
            f"{VENDOR}/multi-user.target": "[Unit]\n",
            f"{ADMIN}/default.target": link("/lib/systemd/system/multi-user.target"),
        }
    )

    assert not units["multi-user.target"].enabled
    assert units["default.target"].path == f"{VENDOR}/multi-user.target"


def test_an_instance_is_enabled_with_its_template():
    path = f"{ADMIN}/getty.target.wants/getty@tty1.service"

    units = image(**{path: link(f"{VENDOR}/getty@.service")})

    assert units["getty@tty1.service"] == Unit(
        path=f"{VENDOR}/getty@.service", wanted_by=("getty.target",), enabled=True
    )
    assert units["getty@.service"].enabled


@pytest.mark.parametrize("target", ["/dev/null", "/dev/../dev/null"])
def test_a_link_to_null_masks_what_is_enabled(target):
    units = image(
        **{
            f"{ADMIN}/ssh.service": link(target),
            f"{ADMIN}/multi-user.target.wants/ssh.service": link(f"{VENDOR}/ssh.service"),
        }
    )

    assert (units["ssh.service"].masked, units["ssh.service"].enabled) == (True, False)


def test_the_vendor_and_an_empty_file_mask_too():
    units = image(**{f"{VENDOR}/sudo.service": link("/dev/null"), f"{ADMIN}/off.service": ""})

    assert units["sudo.service"].masked
    assert units["off.service"].masked


def test_a_file_in_etc_hides_the_vendors():
    units = image(**{f"{ADMIN}/ssh.service": "[Install]\nWantedBy=mine.target\n"})

    assert units["ssh.service"].wanted_by == ("mine.target",)
    assert units["ssh.service"].path == f"{ADMIN}/ssh.service"


@pytest.mark.parametrize("target", ["gone.service", "", "loop.service", "/etc/passwd"])
def test_links_to_nowhere_are_no_units(target):
    assert "loop.service" not in image(**{f"{ADMIN}/loop.service": link(target)})


def test_what_is_no_unit_is_left_out():
    units = image(**{f"{VENDOR}/README": "x", f"{VENDOR}/sub/x.service": "[Install]\n"})

    assert set(units) == {"ssh.service", "getty@.service", "off.service"}


def test_only_regular_unit_files_are_wanted():
    listing = {
        f"{VENDOR}/a.service": FILE,
        f"{ADMIN}/b.timer": FILE,
        f"{VENDOR}/c.service": link("a.service"),
        f"{VENDOR}/d.conf": FILE,
    }

    assert sorted(unit_files(listing)) == [f"{ADMIN}/b.timer", f"{VENDOR}/a.service"]


def test_an_empty_value_clears():
    text = "[Install]\nWantedBy=a.target\nWantedBy=\nWantedBy=b.target c.target\n# WantedBy=d\n"

    assert install_section(text)["WantedBy"] == ["b.target", "c.target"]


@given(st.text() | st.lists(st.sampled_from(list("[Install]=\n\\@.; "))).map("".join))
def test_any_text_is_read_without_an_error(text):
    install_section(text)
