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
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .inside_secrets import HOST_KEY, exposed, json_of, read, said, text_of  # noqa: TC004 -- it is run before this

#: Who runs this text sets these before: it and what comes before it, one of the functions, that one's argument.
SOURCES: Sequence[str] = globals().get("SOURCES", ())
TASK: str = globals().get("TASK", "")
REQUEST: Any = globals().get("REQUEST")
RUN = "for source in SOURCES:\n    exec(compile(source, 'inside.py', 'exec'))\n"

#: Column of `chronyc -c sources`.
_SOURCE_ADDRESS = 2


def again(task: str, user: str, request: dict[str, Any]) -> Any:  # noqa: ANN401 -- JSON
    """The answer of this same program doing `task` as another user; None where sudo does not allow it."""
    program = f"SOURCES = {SOURCES!r}\nTASK = {task!r}\nREQUEST = {request!r}\n{RUN}"
    status, out, _ = said(["python3", "-"], user=user, stdin=program, limit=600)
    return json.loads(out) if status == 0 else None


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
    device = Path("/sys/class/block", Path(first["source"]).resolve().name).resolve()
    below = [path.resolve() for path in device.glob("slaves/*")]
    if len(below) == 1:  # a logical volume, and the partition that it lies on
        device = below[0]
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
    report = json_of(["cloud-init", "status", "--format", "json"]) or _in_few_words()
    return {**report, "waited": round(time.monotonic() - began, 1)}


def _in_few_words() -> dict[str, Any]:
    """The same of a cloud-init that knows no `--format`, as bullseye's: its word, and the errors that it noted."""
    word = (text_of(["cloud-init", "status"]) or "").partition("status: ")[2]
    try:
        noted = json.loads(read("/run/cloud-init/result.json") or "{}")["v1"]["errors"]
    except (ValueError, KeyError, TypeError):
        noted = []
    return {"status": word, "errors": noted} if word else {}


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
        "networkmanager": Path("/run/NetworkManager").is_dir(),
        "routes6": json_of(["ip", "-j", "-6", "route", "show", "default"]) or [],
        "filesystem": root_filesystem(),
        "clock": clock(),
        "host_certificate": text_of(["ssh-keygen", "-L", "-f", f"{HOST_KEY}-cert.pub"]),
        "checks": answers(request["checks"]),
    }  # fmt: skip


if TASK:
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    json.dump(globals()[TASK](REQUEST), sys.stdout)
