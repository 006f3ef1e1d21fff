"""The part of `inside.py` that looks for secrets, as root and then as whoever must not read them; sent before it.

Runs in the guest, imports nothing of ours and changes nothing. Has what both need to ask programs and files.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Places that hold configuration, state or logs; programs and libraries are the base's own.
_ROOTS = "/boot /etc /home /opt /root /run /srv /tmp /usr/lib/piimage /var".split()
_SKIPPED = ("/run/user", "/var/lib/apt", "/var/lib/dpkg/info", "/var/cache/apt")
_LARGEST = 16 << 20
#: What none but root (or a group of daemons) may read: files, or directories of such files.
_INSTANCE = "/var/lib/cloud/instance"
_PRIVATE = (
    "/etc/shadow", "/etc/gshadow", "/etc/netplan", "/run/netplan", "/etc/NetworkManager/system-connections",
    "/etc/ssh/ssh_host_ed25519_key", "/var/lib/cloud/seed", f"{_INSTANCE}/user-data.txt",
    f"{_INSTANCE}/user-data.txt.i", f"{_INSTANCE}/cloud-config.txt", f"{_INSTANCE}/network-config.json",
)  # fmt: skip
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
#: In the first user's home; on the nodes that reach others.
_CLUSTER_KEY = ".ssh/id_cluster"
_SEED = "/var/lib/cloud/seed/nocloud/"


def said(
    argv: Sequence[str], limit: float = 60, user: str | None = None, stdin: str = ""
) -> tuple[int, str, str]:
    """Exit status, output and errors of a program; status 127 when it is not there, 124 when it overruns."""
    if user is not None:
        argv = ["sudo", "-n", "-H", "-u", user, "--", *argv]
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=limit, check=False, errors="replace"
        )  # fmt: skip
    except FileNotFoundError:
        return 127, "", f"{argv[0]}: not found"
    except subprocess.TimeoutExpired:
        return 124, "", f"{argv[0]}: no end within {limit} s"
    return done.returncode, done.stdout, done.stderr


def text_of(argv: Sequence[str]) -> str | None:
    """A program's output, stripped; None when it failed."""
    status, out, _ = said(argv)
    return out.strip() if status == 0 else None


def json_of(argv: Sequence[str]) -> Any:  # noqa: ANN401 -- whatever the program says
    """A program's output as JSON; None when it is none, whatever the status (cloud-init says 2 for warnings)."""
    try:
        return json.loads(said(argv)[1])
    except ValueError:
        return None


def read(path: str) -> str | None:
    """A file's text, or None."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


# --- as root -----------------------------------------------------------------------------------------------


def privileged(request: dict[str, Any]) -> dict[str, Any]:
    """What only root can say: password states, padding of stamped files, private paths, what must stay secret."""
    states = {}
    for name in ["root", *request["users"]]:
        fields = (text_of(["passwd", "-S", name]) or "").split()
        known = {"P": "set", "NP": "empty"}
        states[name] = known.get(fields[1], "locked") if len(fields) > 1 else None
    slots = (read("/usr/lib/piimage/slots") or "").split("\n")
    padded = [path for path in slots if path and (read(path) or "").endswith("\n\n")]
    sudo = {name: said(["sudo", "-n", "true"], user=name)[0] == 0 for name in request["users"]}
    private = sorted(_files(_PRIVATE, lambda _path: True))
    homes = [
        line.split(":")[5]
        for line in (text_of(["getent", "passwd", *request["users"]]) or "").splitlines()
    ]
    own = [key for key in (f"{home}/{_CLUSTER_KEY}" for home in homes) if Path(key).is_file()]
    return {
        "passwords": states, "padded": padded, "sudo": sudo, "private": private, "own": own,
        "needles": _needles(own),
    }  # fmt: skip


def _needles(own: Sequence[str]) -> dict[str, str]:
    """Label -> text that no ordinary user may read: hashes, Wi-Fi key, private keys of host and cluster (`own`)."""
    found = {}
    for line in (read("/etc/shadow") or "").splitlines():
        name, _, rest = line.partition(":")
        value = rest.partition(":")[0].lstrip("!")
        if value.startswith("$"):
            found["password hash of " + name] = value
    network, data = read(_SEED + "network-config") or "", read(_SEED + "user-data") or ""
    for value in re.findall(r"(?m)^\s*['\"]?password['\"]?:\s*['\"]?([^\s'\"]{8,})", network):
        found["Wi-Fi key"] = value
    for value in re.findall(r"(\$[0-9a-z]+\$[^\s'\"]{8,})", data):
        found["password hash of the seed"] = value
    for label, path in [
        ("private host key", HOST_KEY),
        *(("private cluster key", path) for path in own),
    ]:
        key = [line for line in (read(path) or "").splitlines() if "KEY" not in line]
        for line in key[2:3]:  # the first lines are alike in all keys
            found[label] = line
    return found


# --- as an ordinary user -----------------------------------------------------------------------------------


def exposed(request: dict[str, Any]) -> dict[str, Any]:
    """Which of `private` this user can open, and in which files it can read one of `needles`; `own` may be read."""
    readable = [path for path in request["private"] if os.access(path, os.R_OK)]
    needles = {label: needle.encode() for label, needle in request["needles"].items()}
    found = []
    for path in _files(_ROOTS, lambda path: path not in _SKIPPED):
        if path in request["own"]:
            continue
        try:
            with Path(path).open("rb") as file:
                content = file.read(_LARGEST)
        except OSError:
            continue
        found += [{"path": path, "what": k} for k, needle in needles.items() if needle in content]
    return {"readable": readable, "found": found}


def _files(roots: Sequence[str], wanted: Callable[[str], bool]) -> Iterator[str]:
    """Regular files below `roots` (or the roots themselves) of a size worth reading."""
    for root in roots:
        if Path(root).is_file():
            yield root
        for where, directories, names in os.walk(root):
            directories[:] = [name for name in directories if wanted(f"{where}/{name}")]
            for name in names:
                path = f"{where}/{name}"
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST:
                    yield path
