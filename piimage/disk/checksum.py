"""CRC-32C (Castagnoli), as ext4 and XFS keep it of their metadata.

The library is loaded by the first checksum: who writes a card over ext4 alone does without.
"""

from __future__ import annotations

_ALL = 0xFFFFFFFF


def crc32c(seed: int, data: bytes | bytearray) -> int:
    """The CRC of `data` after `seed`, not inverted at either end (as the kernel's `ext4_chksum`)."""
    import crc32c as library  # noqa: PLC0415 -- see above

    return library.crc32c(data, seed ^ _ALL) ^ _ALL


def holds(raw: bytes, at: int) -> bool:
    """Whether the CRC at byte `at` of a structure of XFS is that of the structure, with zeros in that place."""
    import crc32c as library  # noqa: PLC0415 -- see above

    head = library.crc32c(bytes(4), library.crc32c(raw[:at]))
    return library.crc32c(raw[at + 4 :], head) == int.from_bytes(raw[at : at + 4], "little")
