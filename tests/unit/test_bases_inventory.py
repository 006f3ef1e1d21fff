from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.bases.inventory import (
    LOCALES,
    MODULES,
    ZONEINFO,
    architecture,
    archived_locales,
    kernels,
    locales,
    timezones,
)
from piimage.errors import ImageError, UnsupportedError
from piimage.facts import FileFact

FILE = FileFact(kind="file", mode=0o644, uid=0, gid=0)
DIRECTORY = FileFact(kind="dir", mode=0o755, uid=0, gid=0)


def elf(machine, width=2, flags=0, order="<"):
    ident = b"\x7fELF" + bytes([width, 1 if order == "<" else 2, 1]) + bytes(9)
    head = ident + struct.pack(f"{order}HHI", 3, machine, 1)
    return head + (struct.pack(f"{order}4I", 0, 0, 0, flags) if width == 1 else bytes(40))


def archive(*names):
    strings = b"".join(name.encode() + b"\0" for name in names)
    start, slots = 56, len(names) + 1
    text = start + 12 * slots
    places = [text + sum(len(n) + 1 for n in names[:i]) for i in range(len(names))]
    entries = b"".join(struct.pack("<3I", 7, at, 1) for at in places) + bytes(12)
    return struct.pack("<6I", 0xDE020109, 1, start, len(names), slots, text).ljust(56, b"\0") + (
        entries + strings
    )


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (elf(183), "arm64"),
        (elf(62), "amd64"),
        (elf(3, 1), "i386"),
        (elf(40, 1, 0x05000400), "armhf"),
        (elf(40, 1, 0x05000200), "armel"),
    ],
)
def test_architecture_from_the_elf_header(program, expected):
    assert architecture({"/usr/bin/dash": program}, {expected}) == expected
    assert architecture({"/usr/bin/ls": program}, ()) == expected


def test_scripts_are_passed_over():
    assert architecture({"/usr/bin/dash": b"#!/x\n", "/bin/sh": elf(183)}, ()) == "arm64"


def test_programs_and_packages_must_agree():
    with pytest.raises(ImageError, match="`arm64`, but its packages are `amd64`"):
        architecture({"/usr/bin/dash": elf(183)}, {"amd64"})


def test_an_image_without_programs_says_what_is_missing():
    with pytest.raises(ImageError, match=r"/usr/bin/dash.*no complete system"):
        architecture({}, {"arm64"})


def test_a_machine_that_we_do_not_know():
    with pytest.raises(UnsupportedError, match="machine type 258"):
        architecture({"/usr/bin/dash": elf(258)}, ())


def test_kernels_oldest_first():
    listing = [MODULES, *(f"{MODULES}/{name}" for name in ("6.12.9-arm64", "6.9.1", "6.12.43+rpt"))]

    assert kernels([*listing, "/boot/vmlinuz-1"]) == ("6.9.1", "6.12.9-arm64", "6.12.43+rpt")
    assert kernels(["/boot/vmlinuz-6.1.0", "/boot/config-6.1.0"]) == ("6.1.0",)
    assert kernels([]) == ()


def test_timezones_as_TZ_names_them():  # noqa: N802 -- TZ is its name
    names = ["Europe/Rome", "UTC", "America/Argentina/Ushuaia", "Etc/GMT+5", "EST5EDT"]
    others = ["posix/Europe/Rome", "right/UTC", "zone1970.tab", "tzdata.zi", "leapseconds"]
    listing = {f"{ZONEINFO}/{name}": FILE for name in names + others}

    assert timezones({**listing, f"{ZONEINFO}/Europe": DIRECTORY}) == set(names)


def test_locales_are_directories_and_the_archive():
    listing = {
        f"{LOCALES}/C.utf8": DIRECTORY,
        f"{LOCALES}/C.utf8/LC_MESSAGES": DIRECTORY,
        f"{LOCALES}/locale-archive": FILE,
    }

    found = locales(listing, archive("en_GB.utf8", "it_IT.utf8"))

    assert found == {"C", "POSIX", "C.utf8", "en_GB.utf8", "it_IT.utf8"}


@given(st.binary(max_size=80), st.integers(0, 200))
def test_a_damaged_archive_names_nothing_wrong(junk, cut):
    good = archive("en_GB.utf8")

    assert archived_locales(junk) == frozenset()
    assert archived_locales(good[:cut]) <= {"en_GB.utf8"}
    assert archived_locales(good[:24] + junk) is not None
