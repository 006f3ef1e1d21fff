"""The distribution that piimage runs on, and the command by which it installs what is missing."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.run import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

#: os-release(5) says to look here first.
_OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
#: Where Debian's sudo looks for programs, whatever PATH its caller has (sudoers(5), secure_path).
_SECURE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What is not a program, in Debian's names and in Fedora's.
_FEDORA = {"python3-guestfs": "python3-libguestfs"}
#: Programs that the Filesystem Hierarchy Standard puts into sbin; dnf finds packages by the path of a file.
_SBIN = frozenset(
    "debugfs depmod dumpe2fs e2fsck fsck.fat mke2fs mkfs.vfat resize2fs sfdisk".split()
)


@dataclass(frozen=True, slots=True)
class Host:
    """A distribution: its name for people, and its `family`: `debian`, `fedora`, or empty for any other."""

    name: str
    family: str

    def install(self, programs: Iterable[str], packages: Iterable[str]) -> str | None:
        """The command that installs `programs` and `packages` (in Debian's names), None where we know of none.

        On Fedora programs are named by their files, which dnf resolves (dnf(8), package-file-spec).
        """
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        if self.family == "debian":
            names = {*(PACKAGES.get(tool, tool) for tool in programs), *packages}
            return shlex.join([*sudo, "apt-get", "install", *sorted(names)])
        if self.family == "fedora":
            names = {*map(_path, programs), *(_FEDORA.get(name, name) for name in packages)}
            return shlex.join([*sudo, "dnf", "install", *sorted(names)])
        return None


def as_root() -> str:
    """What to type for `piimage` so that it runs as root, in the shell that this command came from."""
    # sudo(8), ENVIRONMENT: who called it. That one's shell is not root's, though we are root here.
    is_by_sudo = os.environ.get("SUDO_UID", "0") != "0"
    return "piimage" if os.geteuid() == 0 and not is_by_sudo else by_sudo()


def by_sudo() -> str:
    """What to type for `piimage` with sudo, which finds no program of a virtual environment by its name alone."""
    known = shutil.which("piimage", path=_SECURE_PATH)
    return "sudo piimage" if known else 'sudo "$(which piimage)"'


def this_host() -> Host:
    """The distribution of this machine, by its os-release."""
    fields = _os_release()
    likes = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    family = next((name for name in likes if name in ("debian", "fedora")), "")
    return Host(fields.get("PRETTY_NAME") or fields.get("ID") or "an unknown system", family)


def _os_release() -> dict[str, str]:
    for path in _OS_RELEASE:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
        return {key: _unquoted(value) for key, equals, value in pairs if equals}
    return {}


def _unquoted(value: str) -> str:
    try:
        return "".join(shlex.split(value))
    except ValueError:
        return value.strip("\"'")


def _path(tool: str) -> str:
    return f"/usr/{'sbin' if tool in _SBIN else 'bin'}/{tool}"
