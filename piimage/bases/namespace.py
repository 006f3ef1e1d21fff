"""Where foreign trees are made: namespaces of our own, so that mounts vanish with the last process.

As root: a mount namespace. As an ordinary user: a user namespace too, with the subordinate ids that
`newuidmap` grants (/etc/subuid). Foreign programs are run by qemu-user through binfmt_misc: the host's entry
if there is one, else an entry of our own, which as an ordinary user needs Linux 6.7 (binfmt_misc per user
namespace).
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from piimage.errors import MissingToolError
from piimage.run import find, require, run

#: The CPU that is emulated for an architecture. QEMU's default `max` emulates pointer authentication, which costs
#: two to five times; a Cortex-A7 runs Debian's armhf (ARMv7) and Raspbian's (ARMv6).
CPUS = {"arm64": "cortex-a57", "armhf": "cortex-a7"}
CPU = CPUS["arm64"]

BINFMT = Path("/proc/sys/fs/binfmt_misc")
#: Debian's name of an architecture -> QEMU's. A host of the first one runs both.
_NAMES = {"arm64": "aarch64", "armhf": "arm"}
#: What programs begin with: class, byte order and e_machine of an ELF header (elf(5)).
_MAGIC = {
    "arm64": (
        r":piimage-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
        r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{interpreter}:F"
    ),
    "armhf": (
        r":piimage-arm:M::\x7f\x45\x4c\x46\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00"
        r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{interpreter}:F"
    ),
}
#: How `_SCRIPT` ends when there is no entry and none can be made.
_NO_BINFMT = 125
#: Runs "$@" with foreign programs executable; NAME is QEMU's name of the architecture. The entry's F flag keeps the
#: interpreter open, so that it need not exist inside the tree.
_SCRIPT = """
place=/proc/sys/fs/binfmt_misc
there() { [ -e $place/qemu-NAME ] || [ -e $place/piimage-NAME ]; }
if ! there; then
	[ -e $place/register ] || mount -t binfmt_misc binfmt_misc $place || exit 125
	there || printf '%s' "$0" >$place/register || exit 125
fi
exec "$@"
"""


def tools(architecture: str = "arm64") -> tuple[str, ...]:
    """The programs that `prefix` needs on this host beyond util-linux."""
    mapping = () if os.geteuid() == 0 else ("newuidmap",)
    return mapping if platform.machine() == "aarch64" else (*mapping, _interpreter(architecture))


def emulation(architecture: str = "arm64") -> str:
    """How programs of `architecture` are run here, for people; an empty string when nothing emulates them."""
    if platform.machine() == "aarch64":
        return ""
    entry = f"qemu-{_NAMES[architecture]}"
    own = (
        "a binfmt entry of our own"
        if not (BINFMT / entry).exists()
        else f"the binfmt entry `{entry}`"
    )
    return f"{architecture} programs through {own}"


def prefix(architecture: str = "arm64") -> list[str]:
    """The command prefix for work on a tree of `architecture`, which is `arm64` or `armhf`.

    Raises `MissingToolError` with what this host lacks.
    """
    require(*tools(architecture))
    flags = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
    if os.geteuid() != 0:
        flags = ["--map-root-user", "--map-auto", *flags]
    script = ['exec "$@"', "sh"]
    if platform.machine() != "aarch64":
        entry = _MAGIC[architecture].format(interpreter=find(_interpreter(architecture)))
        script = [_SCRIPT.replace("NAME", _NAMES[architecture]), entry]
    # Whatever ends us ends the namespace: a killed build must not go on installing for minutes.
    command = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        *flags,
        "--",
        "sh",
        "-c",
        *script,
    ]
    _check(command, architecture)
    return command


def _interpreter(architecture: str) -> str:
    """The program that runs a foreign program."""
    return f"qemu-{_NAMES[architecture]}-static"


def _check(command: list[str], architecture: str) -> None:
    """Try the prefix on nothing, to fail before the work and with a reason."""
    result = run([*command, "true"], check=False)
    if result.returncode == 0:
        return
    said = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
    detail = f" ({said[0]})" if said else ""
    if os.geteuid() == 0 and result.returncode != _NO_BINFMT:
        raise MissingToolError(
            f"this machine does not allow a mount namespace{detail}", hint=_HINT_MOUNTS
        )
    if os.geteuid() == 0:
        raise MissingToolError(
            f"this machine cannot run {architecture} programs{detail}", hint=_HINT_ROOT
        )
    if "/etc/sub" in detail:
        raise MissingToolError(f"you have no subordinate ids{detail}", hint=_HINT_IDS)
    raise MissingToolError(
        f"user namespaces do not allow making a foreign tree here{detail}", hint=_HINT_USER
    )


_HINT_MOUNTS = (
    "a container needs the capability SYS_ADMIN (`docker run --privileged`), a chroot a root that is a mount point "
    "(`mount --bind DIR DIR`)"
)
_HINT_ROOT = (
    "binfmt_misc must be available: `mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc`"
)
_HINT_IDS = (
    "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`, with numbers that nobody else has "
    "in /etc/subuid and /etc/subgid; or run this one command with sudo"
)
_HINT_USER = (
    "an entry for you in /etc/subuid and /etc/subgid, the package uidmap, and either Linux 6.7 or the host's own "
    "binfmt entry (package binfmt-support or systemd) are needed; or run this one command with sudo"
)
