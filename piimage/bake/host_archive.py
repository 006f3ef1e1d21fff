"""A private root for the host's apt that knows the Debian archive this machine uses, for another architecture.

Needs no privilege, reads and changes nothing of the host's own apt state but its keys; signatures are checked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from piimage.bake.apt_root import configuration
from piimage.run import run

_DIRECTORIES = (
    "etc/apt/preferences.d", "etc/apt/apt.conf.d", "etc/apt/trusted.gpg.d", "etc/apt/sources.list.d",
    "etc/apt/auth.conf.d", "var/lib/apt/lists/partial", "var/lib/dpkg", "var/cache/apt/archives/partial",
)  # fmt: skip
#: Where Debian keeps the keys of its archive, for apt and for tools such as mmdebstrap.
_KEYS = (("/etc/apt", "trusted.gpg"), ("/etc/apt/trusted.gpg.d", "*"),
         ("/usr/share/keyrings", "debian-archive-keyring.*"))  # fmt: skip


def update(sources: list[str], root: Path, architecture: str) -> dict[str, str]:
    """Fill the new directory `root`, fetch the lists of `sources` (lines of sources.list(5)); apt's environment.

    Raises `ToolFailedError` when the archive is not there or not signed by a key that this machine trusts.
    """
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    (root / "etc/apt/sources.list").write_text("\n".join(sources) + "\n", encoding="utf-8")
    for directory, pattern in _KEYS:
        for key in sorted(Path(directory).glob(pattern)):
            shutil.copyfile(key, root / "etc/apt/trusted.gpg.d" / key.name)
    (root / "apt.conf").write_text(configuration(root, architecture, ()), encoding="utf-8")
    env = {"APT_CONFIG": str(root / "apt.conf")}
    run(["apt-get", "-q", "update"], env=env)
    return env
