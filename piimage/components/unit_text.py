"""Paths in systemd's language: what a unit is called after a path, how a setting holds one."""

from __future__ import annotations

#: What systemd.unit(5) leaves as it is in a name; `/` becomes `-`, a leading dot is escaped too.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_.")


def unit_name(path: str, suffix: str) -> str:
    r"""The unit for the absolute, normal `path`: `/srv/a-b` and `.mount` make `srv-a\x2db.mount`."""
    name = "".join(
        chr(byte) if byte in _PLAIN else "-" if byte == ord("/") else f"\\x{byte:02x}"
        for byte in path.encode(errors="surrogateescape").strip(b"/")
    )
    if name.startswith("."):
        name = f"\\x2e{name[1:]}"
    return f"{name or '-'}{suffix}"


def literal(text: str) -> str:
    """`text` in a setting that expands specifiers, such as `Where=`."""
    return text.replace("%", "%%")
