"""Where the kernel's command line is: on the firmware partition, or in entries that GRUB reads (Fedora).

Entries are files `loader/entries/*.conf` of the boot partition (The Boot Loader Specification, type 1); `options`
is the command line, in which GRUB replaces `$kernelopts` and the like by its own variables. A kernel that is
installed later takes its own from /etc/kernel/cmdline, where there is one (kernel-install(8)), and grub2-mkconfig
from GRUB_CMDLINE_LINUX in /etc/default/grub.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.distros.firmware_config import firmware_command_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from piimage.facts import Facts

KERNEL_CMDLINE, GRUB_DEFAULTS = "/etc/kernel/cmdline", "/etc/default/grub"
ENTRIES = "loader/entries"
_ENTRY = re.compile(rf"(/.+)?/{ENTRIES}/[^/]+\.conf")
_OPTIONS = re.compile(r"^options[ \t]+(.*)$", re.MULTILINE)
_GRUB = re.compile(r"^([ \t]*GRUB_CMDLINE_LINUX=)([\"']?)(.*?)\2[ \t]*$", re.MULTILINE)
_PARTS = re.compile(r"\d+|[a-zA-Z]+")


def entries(paths: Iterable[str]) -> list[str]:
    """Those of the paths that are entries, the one first that GRUB starts by itself: of the newest kernel."""
    found = [path for path in paths if _ENTRY.fullmatch(path) and "-0-rescue" not in path]
    return sorted(found, key=_version, reverse=True)


def _version(path: str) -> list[tuple[int, int, str]]:
    """Digits count as numbers, and more than letters, as in rpm's comparison, which GRUB uses (blscfg)."""
    parts = _PARTS.findall(path.rpartition("/")[2].partition("-")[2].removesuffix(".conf"))
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def in_force(facts: Facts) -> list[str]:
    """Entries whose `options` are the command line; none where the firmware hands over a cmdline.txt."""
    return [] if firmware_command_line(facts) else entries(facts.files)


def command_line(facts: Facts) -> str:
    """The command line of the next start as text, without what GRUB puts in, or `""`."""
    found = in_force(facts)
    return options(facts.text(found[0])) if found else firmware_command_line(facts)


def options(entry: str) -> str:
    """The tokens of an entry, in one line."""
    return " ".join(_OPTIONS.findall(entry))


def field(entry: str, key: str) -> str:
    """The value of a key of an entry, or `""`."""
    found = re.search(rf"^{key}[ \t]+(.*?)[ \t]*$", entry, re.MULTILINE)
    return found[1] if found else ""


def with_options(entry: str, change: Callable[[str], str]) -> str:
    """The entry with other options: `change` takes the tokens as one line and gives those to have."""
    line = f"options {change(options(entry)).strip()}"
    first = _OPTIONS.search(entry)
    if first is None:
        return entry.rstrip("\n") + f"\n{line}\n"
    rest = _OPTIONS.sub("", entry[first.end() :])
    return entry[: first.start()] + line + re.sub(r"\n\n+", "\n", rest)


def with_grub_defaults(text: str, change: Callable[[str], str]) -> str:
    """/etc/default/grub with other tokens for Linux."""
    return _GRUB.sub(lambda m: f'{m[1]}"{change(m[3]).strip()}"', text, count=1)
