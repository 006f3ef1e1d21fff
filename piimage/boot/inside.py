"""What a node says about itself: runs in the guest, prints one JSON value. Never imported by piimage.

`piimage.boot.guest` sends the source over ssh to the guest's python3, as the first user; it imports nothing
of ours and changes nothing. Where it needs root it sends itself to `sudo -n python3`; without that right those
facts are null. The secrets that it looks for never leave the guest: only where they can be read does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Who runs this text sets these before: the text itself, one of its functions, that function's argument.
SOURCE: str = globals().get("SOURCE", "")
TASK: str = globals().get("TASK", "")
REQUEST: Any = globals().get("REQUEST")
RUN = "exec(compile(SOURCE, 'inside.py', 'exec'))\n"

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
#: Column of `chronyc -c sources`.
_SOURCE_ADDRESS = 2
_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
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


def again(task: str, user: str, request: dict[str, Any]) -> Any:  # noqa: ANN401 -- JSON
    """The answer of this same program doing `task` as another user; None where sudo does not allow it."""
    program = f"SOURCE = {SOURCE!r}\nTASK = {task!r}\nREQUEST = {request!r}\n{RUN}"
    status, out, _ = said(["python3", "-"], user=user, stdin=program, limit=600)
    return json.loads(out) if status == 0 else None


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
        ("private host key", _HOST_KEY),
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


# --- as the first user -------------------------------------------------------------------------------------


def account(name: str) -> dict[str, Any] | None:
    """An account as the system resolves it; None when it does not."""
    line = text_of(["getent", "passwd", name])
    if not line:
        return None
    fields = line.split(":")
    groups = text_of(["id", "-Gn", name]) or ""
    return {
        "uid": int(fields[2]), "gid": int(fields[3]), "home": fields[5], "shell": fields[6],
        "group": text_of(["id", "-gn", name]), "groups": sorted(groups.split()),
        "home_owner": _owner(fields[5]),
    }  # fmt: skip


def _owner(path: str) -> list[int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return [status.st_uid, status.st_gid]


def root_filesystem() -> dict[str, Any] | None:
    """Sizes in bytes: the file system on /, where its partition ends, the disk."""
    found = json_of(["findmnt", "-J", "-b", "-o", "SOURCE,FSTYPE,SIZE", "/"])
    if not found:
        return None
    first = found["filesystems"][0]
    device = Path("/sys/class/block", Path(first["source"]).name).resolve()
    start, size = read(f"{device}/start"), read(f"{device}/size")
    disk = read(f"{device.parent}/size")
    if start is None or size is None or disk is None:
        return None
    return {
        "source": first["source"], "type": first["fstype"], "size": int(first["size"]),
        "partition": int(size) * 512, "partition_end": (int(start) + int(size)) * 512, "disk": int(disk) * 512,
    }  # fmt: skip


def clock() -> dict[str, Any]:
    """Time, zone and what chrony says; `serves` is whether port 123 (0x7B) is open."""
    ports = (read("/proc/net/udp") or "") + (read("/proc/net/udp6") or "")
    lines = (text_of(["chronyc", "-n", "-c", "sources"]) or "").splitlines()
    return {
        "now": int(time.time()),
        "zone": text_of(["readlink", "/etc/localtime"]),
        "tracking": text_of(["chronyc", "-n", "-c", "tracking"]),
        "sources": [line.split(",")[_SOURCE_ADDRESS] for line in lines if line.count(",") > 1],
        "serves": bool(re.search(r":007B ", ports)),
    }


def units(limit: float) -> dict[str, Any]:
    """The state of the system once it has come to rest, and which units failed."""
    state = said(["systemctl", "is-system-running", "--wait"], limit=limit)[1].strip()
    failed = text_of(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]) or ""
    return {
        "state": state or "no answer",
        "failed": [line.split()[0] for line in failed.splitlines() if line.split()],
        "target": text_of(["systemctl", "get-default"]),
        "startup": text_of(["systemd-analyze", "time"]),
    }


def locale() -> str | None:
    """LANG as sessions begin with it."""
    text = (read("/etc/default/locale") or "") + (read("/etc/locale.conf") or "")
    found = re.search(r"(?m)^LANG=[\"']?([^\"'\s]+)", text)
    return found[1] if found else None


def cloud_init(limit: float) -> dict[str, Any]:
    """cloud-init's own report, after it has ended or `limit` seconds."""
    began = time.monotonic()
    said(["cloud-init", "status", "--wait"], limit=limit)
    report = json_of(["cloud-init", "status", "--format", "json"]) or {}
    return {**report, "waited": round(time.monotonic() - began, 1)}


def answers(checks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The plan's own checks, each asked as the user it names, else as the first."""
    me = text_of(["id", "-un"])
    found = []
    for check in checks:
        user = check["user"] if check["user"] != me else None
        status, out, errors = said(check["argv"], user=user, limit=120)
        said_so = {"status": status, "stdout": out[-20_000:], "stderr": errors[-2000:]}
        found.append({"name": check["name"], **said_so})
    return found


def facts(request: dict[str, Any]) -> dict[str, Any]:
    """Everything, in the order in which it becomes true."""
    first = cloud_init(request["limit"])
    system = units(request["limit"])
    root = again("privileged", "root", {"users": request["users"]})
    secrets = None
    if root is not None:
        own = root.pop("own")
        task = {"private": root["private"], "needles": root.pop("needles"), "own": own}
        others = {**task, "private": [*task["private"], *own], "own": []}
        secrets = {
            "looked_for": sorted(task["needles"]),
            "nobody": again("exposed", "nobody", others),
            "login": exposed(task),
        }
    return {
        "version": 1,
        "cloud_init": first,
        "system": system,
        "host": {
            "name": text_of(["hostname"]), "fqdn": text_of(["hostname", "-f"]), "kernel": text_of(["uname", "-r"]),
            "machine_id": (read("/etc/machine-id") or "").strip(), "cmdline": (read("/proc/cmdline") or "").strip(),
            "hosts_sha256": hashlib.sha256((read("/etc/hosts") or "").encode()).hexdigest(),
            "locale": locale(),
        },
        "login": text_of(["id", "-un"]),
        "users": {name: account(name) for name in request["users"]},
        "root": root,
        "secrets": secrets,
        "addresses": json_of(["ip", "-j", "address", "show"]) or [],
        "routes": json_of(["ip", "-j", "route", "show", "table", "all"]) or [],
        "routes6": json_of(["ip", "-j", "-6", "route", "show", "default"]) or [],
        "filesystem": root_filesystem(),
        "clock": clock(),
        "host_certificate": text_of(["ssh-keygen", "-L", "-f", f"{_HOST_KEY}-cert.pub"]),
        "checks": answers(request["checks"]),
    }  # fmt: skip


if TASK:
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    json.dump(globals()[TASK](REQUEST), sys.stdout)
