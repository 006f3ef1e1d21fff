"""Asking a running node: one ssh call as the first user, by a client that trusts nothing but the cluster's CA."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from piimage.boot.place import KNOWN_HOSTS, SSH_CONFIG
from piimage.emulator import clean
from piimage.errors import RehearsalError, ToolFailedError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from piimage.boot.qemu import Vm
    from piimage.components.contribution import Check
    from piimage.run import Result

#: ssh's own status for "I did not get through"; a program in the guest may use it too, ours does not.
_NOT_THROUGH = 255
#: The program that a node runs to tell of itself, in the order in which its parts are run.
_INSIDE = ("inside_secrets.py", "inside.py")
_PAUSE = 3.0
#: What no later attempt would change.
_FINAL = ("Host key verification failed", "no matching host key type")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a node: `ssh -F config name`."""

    config: Path
    name: str

    @property
    def command(self) -> str:
        """The command for people."""
        return f"ssh -F {self.config} {self.name}"


def write_access(
    directory: Path, *, name: str, user: str, port: int, identity: Path, ca_public: str
) -> Access:
    """Write `ssh_config` and `known_hosts` into `directory`.

    Only a host certificate of the CA for this very name is accepted: no plain key, nobody else's file.
    """
    known = directory / KNOWN_HOSTS
    key = " ".join(ca_public.split()[:2])
    known.write_text(f"@cert-authority {name} {key}\n", encoding="utf-8")
    config = directory / SSH_CONFIG
    options = {
        "HostName": "127.0.0.1",
        "Port": port,
        "User": user,
        "IdentityFile": _quoted(identity),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "HostKeyAlias": name,
        "HostKeyAlgorithms": "ssh-ed25519-cert-v01@openssh.com",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "UserKnownHostsFile": _quoted(known),
        "GlobalKnownHostsFile": "/dev/null",
        "BatchMode": "yes",
        "ConnectTimeout": 60,
        "ServerAliveInterval": 30,
        "ServerAliveCountMax": 10,
        "LogLevel": "ERROR",
    }
    lines = [f"Host {name}", *(f"    {key} {value}" for key, value in options.items())]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Access(config, name)


def _quoted(path: Path) -> str:
    """A path in ssh_config(5): quoted against blanks, `%` doubled against its tokens."""
    return '"' + str(path.resolve()).replace("%", "%%") + '"'


def program(
    users: Sequence[str], checks: Sequence[Check], limit: float, *, alone: bool = True
) -> bytes:
    """The text that the guest's python3 runs; `limit` is for cloud-init and for the system to come to rest.

    A node that runs `alone` is not asked what needs the others.
    """
    texts = [files("piimage.boot").joinpath(name).read_text(encoding="utf-8") for name in _INSIDE]
    request = {
        "users": list(users),
        "limit": limit,
        "checks": [
            {"name": c.name, "argv": list(c.argv), "user": c.user}
            for c in checks
            if not (alone and c.needs_cluster)
        ],
    }
    return (
        f"SOURCES = {texts!r}\nTASK = 'facts'\nREQUEST = {request!r}\n"
        "for source in SOURCES:\n    exec(compile(source, 'inside.py', 'exec'))\n"
    ).encode()


def ask(access: Access, text: bytes, vm: Vm, *, reach: float, limit: float) -> dict[str, Any]:
    """Run `program`'s text in the guest and return its facts; `reach` and `limit` as in `call`.

    Raises `RehearsalError` when ssh is refused, the guest's program fails, or the machine ends.
    """
    done = call(access, "python3 -", vm, stdin=text, reach=reach, limit=limit)
    if done.returncode != 0:
        words = last(done.stderr) or f"status {done.returncode}"
        raise vm.failure(f"the node's report failed: {words}")
    return answer(done.stdout)


def call(
    access: Access, command: str, vm: Vm, *, stdin: bytes = b"", reach: float, limit: float
) -> Result:
    """Run a command of the guest's shell, whatever its exit status.

    Tries for `reach` seconds to get through, then gives the command `limit` seconds. Raises `RehearsalError`
    when ssh is refused, the command takes longer, or the machine ends.
    """
    argv: list[str | Path] = ["ssh", "-F", access.config, "-T", access.name, command]
    began = time.monotonic()
    while True:
        try:
            done = run(argv, stdin=stdin, check=False, timeout=limit)
        except ToolFailedError as error:
            raise vm.failure(f"the node did not report within {limit:.0f} s") from error
        if done.returncode != _NOT_THROUGH:
            return done
        words = done.stderr.decode(errors="replace")
        final = any(sign in words for sign in _FINAL)
        if final or not vm.running or time.monotonic() - began > reach:
            raise vm.failure(f"ssh did not let us in: {last(done.stderr) or 'no reason given'}")
        time.sleep(_PAUSE)


def answer(said: bytes) -> dict[str, Any]:
    """A JSON object that a node printed; raises `RehearsalError` for anything else."""
    try:
        found = json.loads(said)
    except ValueError as error:
        raise RehearsalError("the node's report is not JSON: something prints at login") from error
    if not isinstance(found, dict):
        raise RehearsalError("the node's report is not an object")
    return found


def last(words: bytes) -> str:
    """The last line that a program said, without control characters."""
    lines = clean(words.decode(errors="replace")).strip().splitlines()
    return lines[-1].strip() if lines else ""
