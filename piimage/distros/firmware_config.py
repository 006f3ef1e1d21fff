"""What config.txt says about the files beside it: where the kernel command line in force lies.

Ubuntu 25.10 and newer keep two sets of boot files: config.txt has `os_prefix=current/` for all, and
`os_prefix=new/` under `[tryboot]`. A cmdline.txt in the root of the partition is then read by nobody.
(raspberrypi.com, "config.txt": os_prefix, cmdline, conditional filters.)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piimage.facts import Facts

CONFIG, CMDLINE = "config.txt", "cmdline.txt"
_SETTING = re.compile(r"[ \t]*(os_prefix|cmdline)[ \t]*=[ \t]*([^\s#]*)")


def prefix(text: str) -> str:
    """`os_prefix` of config.txt as it is for every board and every boot, such as `current/`, or `""`."""
    return _settings(text).get("os_prefix", "")


def cmdline_name(text: str) -> str:
    """Where config.txt says the command line is, relative to the firmware partition."""
    found = _settings(text)
    name = found.get("os_prefix", "") + (found.get("cmdline") or CMDLINE)
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def cmdline_path(facts: Facts) -> str:
    """The path of the kernel command line that the firmware reads, as Facts have it: in small letters."""
    return f"{facts.firmware}/{cmdline_name(facts.text(f'{facts.firmware}/{CONFIG}')).lower()}"


def firmware_command_line(facts: Facts) -> str:
    """The command line that the firmware hands over, or `""` where there is none."""
    return first_line(facts.text(cmdline_path(facts)))


def first_line(text: str) -> str:
    """What the firmware takes of a command line's file: the first line that has something in it.

    Windows' editors end it with a carriage return, which is part of no token.
    """
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def _settings(text: str) -> dict[str, str]:
    """The settings outside of conditional sections; of several the last one counts."""
    found: dict[str, str] = {}
    everywhere = True
    for line in text.splitlines():
        section = re.match(r"[ \t]*\[([^]]*)\]", line)
        setting = _SETTING.match(line)
        if section:
            everywhere = section[1].strip().lower() == "all"
        elif setting and everywhere:
            found[setting[1]] = setting[2]
    return found
