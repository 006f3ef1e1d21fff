"""A private root for the host's dnf, with the image's own repositories, keys, variables and installed packages.

Of the repositories come along where they are, whose keys they name and what they leave out; nothing that switches a
check off, runs a program or is of this machine's disks. Formats: dnf.conf(5), its repository options.
"""

from __future__ import annotations

import configparser
import io
import posixpath
import re
from typing import TYPE_CHECKING

from piimage.bases.rpm_database import LOG, PLACES
from piimage.disk.rootfs import open_tree

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.facts import Facts

REPOSITORIES, VARIABLES = "etc/yum.repos.d", "etc/dnf/vars"
#: Where the database is in the private root; a distribution's own rpm may have it elsewhere, so a macro says it.
_DATABASE = "/var/lib/rpm"
_MACROS = ".rpmmacros", f"%_dbpath {_DATABASE}\n"
_KEYS = "/etc/pki/rpm-gpg"
_KEPT = (
    "name", "enabled", "baseurl", "mirrorlist", "metalink", "gpgkey", "repo_gpgcheck", "priority", "cost", "exclude",
    "excludepkgs", "includepkgs", "module_hotfixes", "username", "password",
)  # fmt: skip
_PLACES = ("baseurl", "mirrorlist", "metalink")
_LOCAL = re.compile(r"(file|media|cdrom):|/", re.IGNORECASE)
_LIMIT = 256 << 20


def write_root(root: Path, image: Path, facts: Facts) -> None:
    """Fill the empty directory `root` from the root file system of `image`; RPM's macros are there as for a HOME.

    Raises `ImageError` for an image that is damaged.
    """
    start = facts.table.partition(facts.mounts["/"]).start
    with open_tree(image, start) as tree:
        listing = tree.list_tree([f"/{REPOSITORIES}", f"/{VARIABLES}", _KEYS], 1)
        databases = [path + end for path in PLACES for end in ("", LOG)]
        names = [path for path, fact in listing.items() if fact.kind in ("file", "link")]
        contents = tree.read_files([*names, *databases], limit=_LIMIT)
    for path in databases:
        data = contents.pop(path, None)
        if data is not None:
            contents[f"{_DATABASE}/{posixpath.basename(path)}"] = data
    for path, data in contents.items():
        if path.startswith(f"/{REPOSITORIES}/"):
            if not path.endswith(".repo"):
                continue
            data = own_repositories(data.decode(errors="replace"), root).encode()  # noqa: PLW2901 -- the same file's
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    for name in (REPOSITORIES, VARIABLES, _DATABASE.lstrip("/")):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / _MACROS[0]).write_text(_MACROS[1], encoding="utf-8")


def own_repositories(text: str, root: Path) -> str:
    """A file of repositories with its keys' paths inside `root`, checks on, and nothing from local media.

    A file that is no such thing gives no repository.
    """
    read = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        read.read_string(text)
    except configparser.Error:
        return ""
    made = configparser.ConfigParser(interpolation=None)
    for section in read.sections():
        options = {k: v for k, v in read[section].items() if k in _KEPT}
        for name in _PLACES:
            words = [w for w in re.split(r"[\s,]+", options.pop(name, "")) if w]
            remote = [word for word in words if not _LOCAL.match(word)]
            if remote:
                options[name] = " ".join(remote)
        if not any(name in options for name in _PLACES):
            continue
        keys = re.split(r"[\s,]+", options.pop("gpgkey", "").strip())
        options["gpgkey"] = " ".join(
            f"file://{root}{path}" for path in map(_key_path, keys) if path
        )
        made[section] = {**options, "gpgcheck": "1", "sslverify": "1", "skip_if_unavailable": "0"}
    out = io.StringIO()
    made.write(out)
    return out.getvalue()


def _key_path(url: str) -> str:
    """The path of a key that is a file of the image, else nothing: a key from the network proves nothing."""
    path = url.removeprefix("file://")
    if not path.startswith("/") or ".." in path.split("/"):
        return ""
    return path
