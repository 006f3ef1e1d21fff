"""A node's console: the file that QEMU writes, read as it grows, and what in it means the end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.emulator import clean

if TYPE_CHECKING:
    from pathlib import Path

_TROUBLE = (
    (re.compile(r"Kernel panic - not syncing: *(.*)"), "the kernel panicked"),
    (re.compile(r"ALERT! +(.*does not exist)"), "the root file system was not found"),
    (re.compile(r"(?:^|\n)\(initramfs\) "), "the initramfs gave up and waits at a prompt"),
    (re.compile(r"You are in emergency mode"), "systemd went into emergency mode"),
    (re.compile(r"(?:Give root password for maintenance|Cannot open access to console)"),
     "systemd went into emergency mode"),
)  # fmt: skip
_PROMPT = re.compile(r"(?:^|[^\w.-])([A-Za-z0-9][\w.-]*) login: ", re.MULTILINE)


class Console:
    """What came so far, without control sequences: an image from outside must not steer our terminal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self.text = ""
        self._rest = ""

    def read(self) -> bool:
        """Take in what is new; says whether there was anything."""
        data = self._file.read()
        if not data:
            return False
        text = self._rest + data.decode(errors="replace")
        cut = text.rfind("\x1b", len(text) - 16 if len(text) > 16 else 0)  # noqa: PLR2004 -- longest sequence
        self._rest, text = (text[cut:], text[:cut]) if cut >= 0 else ("", text)
        self.text += clean(text)
        return True

    def close(self) -> None:
        """Close the file; the text stays."""
        self._file.close()

    def last(self, count: int) -> list[str]:
        """The last `count` lines that are not empty."""
        lines = self.text[-20_000:].split("\n")
        return [line.rstrip() for line in lines if line.strip()][-count:]

    def newest(self) -> str:
        """The newest line that is not empty, or an empty string."""
        return next(iter(self.last(1)), "")

    def prompt(self) -> str | None:
        """The host name in the login prompt, once there is one."""
        found = _PROMPT.search(self.text + self._rest)
        return found[1] if found else None

    def trouble(self) -> str | None:
        """In words, what the console says has gone wrong for good."""
        for pattern, words in _TROUBLE:
            found = pattern.search(self.text)
            if found:
                detail = found[1].strip() if found.groups() else ""
                return f"{words}: {detail}" if detail else words
        return None
