"""CRC-32C (Castagnoli), as ext4 keeps it of its metadata: by table, for the few blocks that are written here."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78  # reflected


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(map(_row, range(256)))


def crc32c(seed: int, data: bytes | bytearray) -> int:
    """The CRC of `data` after `seed`, not inverted at either end (as the kernel's `ext4_chksum`)."""
    table = _TABLE
    for byte in data:
        seed = table[(seed ^ byte) & 0xFF] ^ seed >> 8
    return seed
