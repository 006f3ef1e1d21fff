"""What config.txt says about the files beside it: where the kernel command line in force lies.

Ubuntu 25.10 and newer keep two sets of boot files: config.txt has `os_prefix=current/` for all, and
`os_prefix=new/` under `[tryboot]`. A cmdline.txt in the root of the partition is then read by nobody. `include FILE`
puts the text of another file of the partition in its place. (raspberrypi.com, "config.txt": os_prefix, cmdline,
include, conditional filters.)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from piimage.facts import Facts

CONFIG, CMDLINE = "config.txt", "cmdline.txt"
_SETTING = re.compile(r"[ \t]*(os_prefix|cmdline)[ \t]*=[ \t]*([^\s#]*)")
_INCLUDE = re.compile(r"[ \t]*include[ \t]+([^\s#]+)[ \t]*(?:#.*)?", re.IGNORECASE)
_SECTION = re.compile(r"[ \t]*\[([^]]*)\]")
#: Filters that hold for no start of a board as it is: for none, and for one that an update asks for and that is over by
#: the next.
_NEVER = ("none", "tryboot")
#: As many files as are read; real ones include one or two.
_MOST = 50
#: What counts where config.txt says nothing.
_DEFAULTS = {"os_prefix": "", "cmdline": CMDLINE}


def whole(read: Callable[[str], str]) -> str:
    """config.txt with what it includes in its place. `read` gives the text of a name on the partition, or `""`.

    A file counts where it is included first, so that no image can have us read in circles.
    """
    seen: set[str] = set()

    def lines(name: str) -> Iterator[str]:
        if name.casefold() in seen or len(seen) > _MOST:
            return
        seen.add(name.casefold())
        for line in read(name).split("\n"):
            found = _INCLUDE.fullmatch(line.rstrip("\r"))
            if found:
                yield from lines(_plain(found[1]))
            else:
                yield line

    return "\n".join(lines(CONFIG))


def config(facts: Facts) -> str:
    """config.txt of the base with what it includes."""
    return whole(lambda name: facts.text(f"{facts.firmware}/{name.lower()}"))


def prefix(text: str) -> str:
    """`os_prefix` of config.txt as it is for every board and every boot, such as `current/`, or `""`."""
    return _settings(text).get("os_prefix", "")


def cmdline_name(text: str) -> str:
    """Where config.txt says the command line is, relative to the firmware partition."""
    found = _settings(text)
    name = found.get("os_prefix", "") + (found.get("cmdline") or CMDLINE)
    return _plain(name)


def _plain(name: str) -> str:
    """A name on the partition without what would lead elsewhere."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def cmdline_path(facts: Facts) -> str:
    """The path of the kernel command line that the firmware reads, as Facts have it: in small letters."""
    return f"{facts.firmware}/{cmdline_name(config(facts)).lower()}"


def firmware_command_line(facts: Facts) -> str:
    """The command line that the firmware hands over, or `""` where there is none."""
    return first_line(facts.text(cmdline_path(facts)))


def first_line(text: str) -> str:
    """What the firmware takes of a command line's file: the first line that has something in it.

    Windows' editors end it with a carriage return, which is part of no token.
    """
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def of_some_boards(text: str) -> list[tuple[str, str]]:
    """Filters of config.txt under which another command line is read than elsewhere, each with the setting's line."""
    common = {**_DEFAULTS, **_settings(text)}
    return [
        (section, f"{key}={value}")
        for section, key, value in _all_settings(text)
        if section not in ("all", *_NEVER) and value != common[key]
    ]


def _settings(text: str) -> dict[str, str]:
    """The settings outside of conditional sections; of several the last one counts."""
    return {key: value for section, key, value in _all_settings(text) if section == "all"}


def _all_settings(text: str) -> Iterator[tuple[str, str, str]]:
    """Each setting with the filter above it, `all` where there is none."""
    inside = "all"
    for line in text.splitlines():
        section = _SECTION.match(line)
        setting = _SETTING.match(line)
        if section:
            inside = section[1].strip().lower()
        elif setting:
            yield inside, setting[1], setting[2]
