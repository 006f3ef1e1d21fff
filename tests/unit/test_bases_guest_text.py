from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.bases.guest_text import FstabLine, dpkg_status, fstab, os_release
from piimage.facts import OsRelease

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
# a comment
VERSION_CODENAME=trixie
ID=debian
ID_LIKE="one two"
BROKEN="no end
lower=no
"""

STATUS = """Package: base-files
Status: install ok installed
Architecture: arm64
Version: 13.8+deb13u1
Description: Debian base system
 Version: 9 is only a continuation
.

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1

Package: held
Status: hold ok installed
Architecture: all
Version: 1:2.0-3
Conffiles:
 /etc/x 0123

Package: half
Status: install ok half-installed
Architecture: armhf
Version: 1
"""


def test_os_release_fields():
    assert os_release(DEBIAN) == OsRelease(
        id="debian",
        version_id="13",
        codename="trixie",
        id_like=("one", "two"),
        pretty="Debian GNU/Linux 13 (trixie)",
    )


@pytest.mark.parametrize("text", ["", "ID=\n", "NAME=x\n", "ID='\n"])
def test_os_release_without_an_id(text):
    assert os_release(text) is None


def test_fstab_lines():
    text = (
        "# PARTUUID=1 / ext4\n"
        "proc /proc proc defaults 0 0\n"
        "PARTUUID=1badcafe-02  /  ext4  defaults,noatime  0 1\n"
        'LABEL="a\\040b"\t/boot/\tvfat\tdefaults\t0\t2\n'
        "UUID=1 none swap sw 0 0\n"
        "broken\n\n"
    )

    assert fstab(text) == [
        FstabLine("proc", "/proc", "proc", ("defaults",)),
        FstabLine("PARTUUID=1badcafe-02", "/", "ext4", ("defaults", "noatime")),
        FstabLine("LABEL=a b", "/boot", "vfat", ("defaults",)),
    ]


def test_installed_packages_and_their_architectures():
    found = dpkg_status(STATUS)

    assert found.versions == {"base-files": "13.8+deb13u1", "held": "1:2.0-3"}
    assert found.architectures == {"arm64"}


@given(st.text() | st.lists(st.sampled_from(list('IDVERSON=\n\t "\\#/:% '))).map("".join))
def test_any_text_is_read_without_an_error(text):
    os_release(text)
    fstab(text)
    dpkg_status(text)
