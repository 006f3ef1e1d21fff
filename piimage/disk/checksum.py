"""CRC-32C (Castagnoli), as ext4 and XFS keep it of their metadata."""

from __future__ import annotations

import crc32c as castagnoli

_ALL = 0xFFFFFFFF


def crc32c(seed: int, data: bytes | bytearray) -> int:
    """The CRC of `data` after `seed`, not inverted at either end (as the kernel's `ext4_chksum`)."""
    return castagnoli.crc32c(data, seed ^ _ALL) ^ _ALL


def holds(raw: bytes, at: int) -> bool:
    """Whether the CRC at byte `at` of a structure of XFS is that of the structure, with zeros in that place."""
    head = castagnoli.crc32c(bytes(4), castagnoli.crc32c(raw[:at]))
    return castagnoli.crc32c(raw[at + 4 :], head) == int.from_bytes(raw[at : at + 4], "little")
