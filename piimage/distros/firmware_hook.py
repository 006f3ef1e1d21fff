"""Debian's package raspi-firmware: what its hook makes cmdline.txt and config.txt from.

/etc/kernel/postinst.d/z50-raspi-firmware truncates and writes both whenever a kernel, an initramfs or the package
itself is configured. It takes consoles and the contiguous memory from the machine that it runs on, unless
/etc/default/raspi-firmware says them, and adds the two files below as they are (raspi-firmware 1.20220830 of
Debian 12, 1.20240424 of Debian 13).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.distros.firmware_config import firmware_command_line

if TYPE_CHECKING:
    from piimage.facts import Facts

HOOK = "/etc/kernel/postinst.d/z50-raspi-firmware"
#: One line, put at the end of the command line.
HOOK_CMDLINE = "/etc/default/raspi-extra-cmdline"
#: Put at the end of config.txt.
HOOK_CONFIG = "/etc/default/raspi-firmware-custom"
#: A shell script of variables: ROOTPART, CONSOLES, CMA, KERNEL, INITRAMFS.
DEFAULTS = "/etc/default/raspi-firmware"
#: What it takes by itself for the contiguous memory, on all boards but one.
_MEMORY = "64M"


def regenerates(facts: Facts) -> bool:
    """Whether the base has Debian's hook (Raspberry Pi OS' raspi-firmware has none)."""
    return HOOK_CMDLINE in facts.text(HOOK)


def extra_tokens(facts: Facts) -> list[str]:
    """The kernel tokens that the hook adds of what the base has for it."""
    return facts.text(HOOK_CMDLINE).split() if regenerates(facts) else []


def as_on_the_board(facts: Facts) -> dict[str, str]:
    """What the hook has to be told of the board where it runs on another machine, as variables of `DEFAULTS`.

    From the command line in force: its consoles, which the hook would look for in /dev, and its `cma`, which it leaves
    out on a Pi 4 alone, since a Pi 4 does not start with it. Empty where `DEFAULTS` says both, or there is no hook.
    """
    if not regenerates(facts):
        return {}
    tokens = firmware_command_line(facts).split()
    consoles = [t.removeprefix("console=") for t in tokens if t.startswith("console=")]
    memory = [t.removeprefix("cma=") for t in tokens if t.startswith("cma=")]
    found = {"CONSOLES": " ".join(consoles), "CMA": memory[-1] if memory else "0"}
    if found["CMA"] == _MEMORY:
        del found["CMA"]
    said = facts.text(DEFAULTS)
    return {
        name: value
        for name, value in found.items()
        if value and not re.search(rf"^[ \t]*{name}=", said, re.MULTILINE)
    }
