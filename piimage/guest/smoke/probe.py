"""What a node says about itself: sent over ssh to its python3, answers one question a line, changes nothing.

Imports nothing but the standard library: it is run from its text. What cannot be read is null.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Before the paths of what is read; tests give every node of theirs a directory.
_ROOT = os.environ.get("PIIMAGE_ROOT", "")
#: Seconds for a small program; a mount may take as long as mount units of ours allow it.
_LIMIT, _MOUNT = 20.0, 45.0
#: Where Open MPI looks, the first that says something wins: its environment comes before all.
_OPENMPI = ("~/.openmpi/mca-params.conf", "/etc/openmpi/openmpi-mca-params.conf",
            f"/etc/openmpi-{os.uname().machine}/openmpi-mca-params.conf")  # fmt: skip
_PRTE = ("~/.prte/mca-params.conf", "/etc/openmpi/prte-mca-params.conf",
         f"/etc/openmpi-{os.uname().machine}/prte-mca-params.conf")  # fmt: skip
#: Later files go over earlier ones (ucs_config_parse_config_files of UCX).
_UCX = ("~/ucx.conf", "/etc/ucx/ucx.conf")
_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
_PRRTE_SINCE = 5
#: Columns of /proc/net/route and of /proc/net/dev.
_DESTINATION, _MASK = 1, 7
_RECEIVED, _SENT = 0, 8


def said(argv: Sequence[str], limit: float = _LIMIT) -> tuple[int | None, str, str]:
    """Exit status, output and last line of the errors; None for a status when it overran or is not there."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False,
            text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "", f"no answer within {limit:g} s"
    except OSError as error:
        return None, "", f"{argv[0]}: {error.strerror}"
    lines = done.stderr.replace("\0", "").strip().splitlines()
    return (
        done.returncode,
        done.stdout.replace("\0", ""),
        lines[-1] if lines else f"exit status {done.returncode}",
    )


def read(path: str) -> str | None:
    """A file's text without white space around it, or None."""
    try:
        file = Path(path).expanduser()
        return Path(f"{_ROOT}{file}").read_text(encoding="utf-8", errors="replace").strip(" \0\n")
    except OSError:
        return None


def facts(question: dict[str, Any]) -> dict[str, Any]:
    """Everything; `question` has the names of all nodes, this one's address, shares, and whether there is MPI."""
    wired = [name for name, found in interfaces().items() if question["address"] in _bare(found)]
    return {
        "name": said(["uname", "-n"])[1].strip(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "architecture": architecture(),
        "release": release(),
        "hosts": hashlib.sha256((read("/etc/hosts") or "").encode()).hexdigest(),
        "names": resolved(question["names"]),
        "interfaces": interfaces(),
        "wired": wired[0] if wired else None,
        "default": default_routes(),
        "shares": {share["path"]: shared(share) for share in question["shares"]},
        "mpi": mpi() if question["mpi"] else None,
        "chrony": tracking(),
        "board": read("/proc/device-tree/model"),
        "temperature": temperature(),
        "throttled": throttled(),
        "free": free(),
        "speed": read(f"/sys/class/net/{wired[0]}/speed") if wired else None,
    }


def architecture() -> str:
    """What programs here are made for, `arm-linux-gnueabihf`, say: the kernel may be of 64 bits on some boards only."""
    return str(getattr(sys.implementation, "_multiarch", os.uname().machine))


def release() -> str:
    """What two nodes must have in common to run one MPI program: codename, else name and version."""
    pairs = re.findall(r'(?m)^(\w+)="?([^"\n]*)"?$', read("/etc/os-release") or "")
    fields = dict(pairs)
    named = f"{fields.get('ID', '?')} {fields.get('VERSION_ID', '')}".strip()
    return str(fields.get("VERSION_CODENAME") or named)


def resolved(names: Sequence[str]) -> dict[str, list[str]]:
    """The IPv4 addresses of every name, as programs here get them."""

    def ask(name: str) -> list[str]:
        out = said(["getent", "ahostsv4", name])[1]
        return sorted({line.split()[0] for line in out.splitlines() if line.strip()})

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(names, pool.map(ask, names)))


def interfaces() -> dict[str, list[str]]:
    """Interface -> IPv4 addresses with their prefix."""
    try:
        found = json.loads(said(["ip", "-j", "-4", "address", "show"])[1])
    except ValueError:
        return {}
    return {
        link["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", [])]
        for link in found
        if "ifname" in link
    }


def _bare(addresses: Sequence[str]) -> list[str]:
    return [address.partition("/")[0] for address in addresses]


def default_routes() -> list[str]:
    """Interfaces that have an IPv4 default route."""
    rows = [line.split() for line in (read("/proc/net/route") or "").splitlines()[1:]]
    return sorted(
        {
            row[0]
            for row in rows
            if len(row) > _MASK and {row[_DESTINATION], row[_MASK]} == {"00000000"}
        }
    )


def shared(share: dict[str, Any]) -> dict[str, Any]:
    """A share: what is mounted there, whether it is exported here, what the head's mark in it says."""
    path = share["path"]
    status, _, why = said(["ls", "-d", f"{path}/."], _MOUNT)  # the automounter wakes up
    mounted = said(["findmnt", "-n", "-o", "SOURCE", "-t", "nfs4,nfs", "--mountpoint", path])[1]
    exports = read("/var/lib/nfs/etab") or ""
    mark, owner = None, None
    if share["mark"] and status == 0:
        mark = said(["cat", share["mark"]], _MOUNT)[1].strip()
        owner = said(["stat", "-c", "%u %g", share["mark"]], _MOUNT)[1].strip()
    return {
        "there": status == 0,
        "why": None if status == 0 else why,
        "source": mounted.strip().splitlines()[-1] if mounted.strip() else None,
        "exported": any(line.split()[:1] == [path] for line in exports.splitlines()),
        "serving": said(["systemctl", "is-active", "nfs-server.service"])[1].strip(),
        "mark": mark,
        "owner": owner,
    }


def mpi() -> dict[str, Any]:
    """What `mpirun` is, and what settings would pin it to the wire: name -> [value, where from]."""
    out = said(["mpirun", "--version"])[1]
    found = re.search(r"\(Open MPI\) (\S+)", out)
    if found:
        pins = {"btl_tcp_if_include": _setting("OMPI_MCA_btl_tcp_if_include", _OPENMPI)}
        if int(found[1].split(".")[0]) >= _PRRTE_SINCE:
            pins["prte_if_include"] = _setting("PRTE_MCA_prte_if_include", _PRTE)
        else:
            pins["oob_tcp_if_include"] = _setting("OMPI_MCA_oob_tcp_if_include", _OPENMPI)
        return {"flavour": "openmpi", "version": found[1], "device": None, "pins": pins}
    found = re.search(r"(?m)^\s*Version:\s*(\S+)", out)
    device = re.search(r"--with-device=([\w:]+)", out)
    if found and "HYDRA" in out:
        pins = {"UCX_NET_DEVICES": _setting("UCX_NET_DEVICES", _UCX)}
        ucx = device is not None and "ucx" in device[1]
        return {
            "flavour": "mpich", "version": found[1], "device": device and device[1],
            "pins": pins if ucx else {},
        }  # fmt: skip
    return {"flavour": None, "version": None, "device": None, "pins": {}}


def _setting(name: str, files: Sequence[str]) -> list[str] | None:
    """The value of a setting in force and where it stands; the last line in a file is what counts."""
    if name in os.environ:
        return [os.environ[name], "the environment"]
    key = re.escape(re.sub(r"^(OMPI|PRTE)_MCA_", "", name))
    for path in files:
        lines = re.findall(rf"(?m)^[ \t]*{key}[ \t]*=[ \t]*(.*?)[ \t]*$", read(path) or "")
        if lines:
            return [lines[-1], path]
    return None


def tracking() -> str | None:
    """What chrony says of its clock, a column a comma."""
    return said(["chronyc", "-n", "-c", "tracking"])[1].strip() or None


def temperature() -> float | None:
    """Degrees Celsius."""
    text = read("/sys/class/thermal/thermal_zone0/temp")
    return int(text) / 1000 if text and text.lstrip("-").isdigit() else None


def throttled() -> str | None:
    """The firmware's word on under-voltage and throttling: 0x0 is never."""
    found = re.search(r"throttled=(0x[0-9a-fA-F]+)", said(["vcgencmd", "get_throttled"])[1])
    text = found[1] if found else read(_THROTTLED)
    return f"0x{re.sub('^0x', '', text)}" if text else None


def free() -> int | None:
    """Bytes that an ordinary user may still write to /."""
    status = os.statvfs("/")
    return status.f_bavail * status.f_frsize


def counters(question: dict[str, Any]) -> dict[str, Any]:
    """Interface -> [bytes received, bytes sent]; what the wired one is made of counts with it, not besides."""
    found = {}
    for line in (read("/proc/net/dev") or "").splitlines():
        name, colon, rest = line.partition(":")
        columns = rest.split()
        if colon and len(columns) > _SENT:
            found[name.strip()] = [int(columns[_RECEIVED]), int(columns[_SENT])]
    addresses = interfaces()
    wired = next((n for n in found if question["address"] in _bare(addresses.get(n, []))), None)
    below = {path.name[6:] for path in Path(f"{_ROOT}/sys/class/net/{wired}").glob("lower_*")}
    return {
        "wired": wired,
        "bytes": {n: count for n, count in found.items() if n != "lo" and n not in below},
    }


def main() -> None:
    """Answer until there are no more questions."""
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    for line in iter(sys.stdin.buffer.readline, b""):
        question = json.loads(line)
        if question["ask"] == "time":
            answer: Any = time.time()
        elif question["ask"] == "tracking":
            answer = tracking()
        else:
            answer = {"facts": facts, "counters": counters}[question["ask"]](question)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
