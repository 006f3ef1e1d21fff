"""The binfmt entries: which programs they take."""

import re

import pytest
from phony import ARM64

from piimage.bases import namespace

#: As in arm64's but of class 1 and e_machine 40.
ARM = b"\x7fELF\1\1\1" + bytes(9) + b"\3\0\x28\0\1\0\0\0" + bytes(28)
AMD64 = b"\x7fELF\2\1\1" + bytes(9) + b"\3\0\x3e\0\1\0\0\0" + bytes(40)
STATIC = 16  # where e_type is: 2 for a static program, 3 for others


def takes(entry, header):
    """Whether the kernel would take a file of that header for it (the kernel's admin-guide/binfmt-misc.rst)."""
    _, _, kind, offset, magic, mask, interpreter, flags = entry.split(":")
    assert (kind, offset, interpreter, flags) == ("M", "", "QEMU", "F")
    magic, mask = (
        bytes(int(x, 16) for x in re.findall(r"\\x(..)", text)) for text in (magic, mask)
    )
    assert len(magic) == len(mask) == 20
    return all(a & m == b & m for a, b, m in zip(header, magic, mask, strict=False))


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("architecture", namespace.CPUS)
def test_each_entry_takes_programs_of_its_architecture_alone(architecture, kind):
    entry = namespace._MAGIC[architecture].format(interpreter="QEMU")
    found = {
        name: takes(entry, header[:STATIC] + bytes([kind]) + header[STATIC + 1 :])
        for name, header in {"arm64": ARM64, "armhf": ARM, "amd64": AMD64}.items()
    }
    assert found == {name: name == architecture for name in found}
