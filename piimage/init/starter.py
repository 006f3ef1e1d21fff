"""A first cluster.yaml: answers to few questions in, a commented file out that `piimage validate` accepts.

What was not asked stands in the file too, as a comment or with its default, so that the file can be grown without
the reference at hand.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from piimage import resolve
from piimage.bases.known import known_facts, known_names
from piimage.disk.atomic import create, partial_name, replacing, sync, write_errors
from piimage.errors import ConfigError, PiimageError
from piimage.report import Severity

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.report import Diagnostic

#: Where node 0 is in a subnet that has room for it: below are routers and what people plug in.
_FIRST = 10
_COLUMN = 34
_PLAIN = re.compile(r"[A-Za-z~/][A-Za-z0-9._+@~/:-]*[A-Za-z0-9]|[A-Za-z]")
#: Words that YAML 1.2, or the 1.1 of other tools, does not read as text.
_WORDS = frozenset("y n yes no on off true false null".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPoint:
    """The Wi-Fi: `psk` is a reference as cluster.yaml takes it (`env:NAME`, `file:PATH`, or 64 hex digits).

    `secret` is what the file that `psk` refers to will hold, if it is to be made.
    """

    ssid: str
    country: str
    psk: str
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the file is made of; values as the fields of cluster.yaml take them, checked when the file is."""

    name: str
    nodes: int
    user: str
    subnet: IPv4Network
    ssh_keys: tuple[str, ...] = ()
    base: str = resolve.DEFAULT_BASE
    timezone: str = "Etc/UTC"
    board: str | None = None
    wifi: AccessPoint | None = None
    share: str | None = "/srv/cluster"
    mpi: str | None = "openmpi"


def first_address(subnet: IPv4Network, nodes: int) -> IPv4Address:
    """The address of node 0: the tenth where all nodes then fit, else the lowest."""
    lowest = subnet.network_address + 1
    tenth = subnet.network_address + _FIRST
    return tenth if tenth + nodes - 1 < subnet.broadcast_address else lowest


def text(answers: Answers) -> str:
    """The file."""
    return "".join(part(answers) for part in (_top, _users, _network, _services, _roles, _nodes))


def _top(a: Answers) -> str:
    return (
        f"# A cluster of {a.nodes} Raspberry Pi board{'s' * (a.nodes != 1)}, begun by `piimage init`."
        " Make it yours: after each change,\n"
        "# `piimage validate` shows every mistake with its line and cure. `piimage schema` helps editors.\n"
        "version: 1\n"
        + _line(f"name: {_scalar(a.name)}", "also the directory below dist/")
        + _line(
            f"base: {_scalar(a.base)}",
            "`piimage base list` shows others; a path to an image works too",
        )
        + f"timezone: {_scalar(a.timezone)}\n"
        + _line("locale: C.UTF-8", "or it_IT.UTF-8, de_DE.UTF-8, ...")
        + _line("keymap: us", "of a keyboard at the node itself")
    )


def _users(a: Answers) -> str:
    keys = ", ".join(map(_scalar, a.ssh_keys))
    line = (
        _line(f"    ssh_keys: [{keys}]", "who may log in; gh:NAME takes the keys that GitHub shows")
        if keys
        else "    # ssh_keys: [file:~/.ssh/id_ed25519.pub, gh:NAME]   # who may log in\n"
    )
    return (
        "\n"
        + _line(
            "users:", "the same numbers on every node, so that files on the share keep their owners"
        )
        + f"  - name: {_scalar(a.user)}\n"
        "    uid: 1000\n"
        + _line(
            "    rename_from: auto", "the image's own first user, if it has one, becomes this one"
        )
        + _line("    sudo: nopasswd", "or password, or none")
        + _line(
            "    password: locked",
            "keys alone; or env:NAME, file:PATH, {hash: ...} of `mkpasswd -m yescrypt`",
        )
        + line
        + "  # - {name: ops, uid: 1001, sudo: nopasswd}     # further users\n"
        "root: {password: locked}\n"
    )


def _network(a: Answers) -> str:
    first = first_address(a.subnet, a.nodes)
    wired = "\nnetwork:\n" + _line(
        f"  wired: {{subnet: {a.subnet}, first: {first}}}",
        "node 0 has the first address, the others follow; no default route",
    )
    if a.wifi is None:
        return wired + (
            "  # A router on the wire, instead of Wi-Fi: `gateway: ADDRESS` within `wired`, its own address.\n"
            "  # wifi:                         # has the default route, where nodes have Wi-Fi\n"
            "  #   ssid: NAME\n"
            "  #   country: IT\n"
            "  #   psk: env:PI_WIFI_PSK        # or file:PATH, or 64 hex digits from `wpa_passphrase NAME`\n"
        )
    return wired + (
        _line("  wifi:", "has the default route")
        + f"    ssid: {_scalar(a.wifi.ssid)}\n"
        + f"    country: {_scalar(a.wifi.country)}\n"
        + _line(
            f"    psk: {_scalar(a.wifi.psk)}",
            "the passphrase, or its 64 hex digits, is not in this file",
        )
    )


def _services(a: Answers) -> str:
    share = (
        f"shares: [{{path: {_scalar(a.share)}, server: head}}]\n"
        if a.share
        else "# shares: [{path: /srv/cluster, server: head}]\n"
    )
    mpi = (
        _line(f"mpi: {{flavour: {a.mpi}, slots: 4}}", "ranks per node: a Pi has four cores")
        if a.mpi
        else "# mpi: {flavour: openmpi, slots: 4}\n"
    )
    return (
        "\n"
        + _line("time: {servers: [pool.ntp.org]}", "the head asks these, the others ask the head")
        + _line(
            "ssh: {password_authentication: false}",
            "keys alone; trust: mesh lets every node reach every other",
        )
        + share
        + mpi
        + "# packages: [htop]                # further packages, on every node\n"
    )


def _roles(a: Answers) -> str:
    wifi = " {wifi: false} keeps them off the Wi-Fi;" if a.wifi else ""
    return (
        "\nroles:\n"
        + _line("  head: {target: multi-user}", "graphical, if its base has a desktop")
        + _line("  worker: {}", f"what the others share:{wifi} packages, overlays, ...")
    )


def _nodes(a: Answers) -> str:
    board = f", board: {_scalar(a.board)}" if a.board else ""
    return (
        f'\nnodes: {{count: {a.nodes}, name: "node{{n}}", head: 0{board}}}\n'
        "# or a list, where nodes differ: [{name: alpha, mac: ..., board: pi4}, {name: beta, address: ...}]\n"
    )


def _line(code: str, comment: str) -> str:
    """A line with a comment, in one column where the code leaves room."""
    return f"{code.ljust(_COLUMN - 2)}  # {comment}\n"


def _scalar(value: str) -> str:
    """A YAML scalar that every reader takes for this text."""
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and ": " not in value:
        return value
    return json.dumps(value, ensure_ascii=False)


def refuse_existing(path: Path) -> None:
    """Raise `PiimageError` if there is anything at `path`."""
    if os.path.lexists(path):
        raise PiimageError(
            f"there is a file `{path}` already, and `piimage init` overwrites nothing",
            hint="name another one: `piimage init lab.yaml`",
        )


def secret_file(path: Path) -> Path:
    """Where the key of the Wi-Fi of the cluster.yaml at `path` is kept."""
    return path.with_suffix(".psk")


def write(path: Path, answers: Answers) -> Cluster:
    """Make the new file `path`, once what it says has been found valid; returns the cluster that it describes.

    The secret of the Wi-Fi, if there is one, gets a file of its own (0600) beside it. Other variables and files of
    secrets need not be there yet. Raises `PiimageError` when one of the files is there already, and `ConfigError`
    for answers that make no valid cluster; in both cases nothing is left behind.
    """
    refuse_existing(path)
    partial = partial_name(path)
    with write_errors(path), ExitStack() as undo:
        undo.callback(partial.unlink, missing_ok=True)
        create(partial, 0o644)
        partial.write_text(text(answers), encoding="utf-8")
        cluster = _checked(partial)
        sync(partial)
        with ExitStack() as failed:
            if answers.wifi and answers.wifi.secret:
                _write_secret(secret_file(path), answers.wifi.secret)
                failed.callback(secret_file(path).unlink)
            _publish(partial, path)
            failed.pop_all()
        sync(path.parent)
    return cluster


def _write_secret(path: Path, secret: str) -> None:
    refuse_existing(path)
    with replacing(path, mode=0o600) as partial:
        partial.write_text(f"{secret}\n", encoding="utf-8")


def psk(ssid: str, passphrase: str) -> str:
    """64 hex digits of a passphrase, as `wpa_passphrase` prints them (IEEE 802.11i, J.4.1)."""
    return hashlib.pbkdf2_hmac("sha1", passphrase.encode(), ssid.encode(), 4096, 32).hex()


def _checked(partial: Path) -> Cluster:
    """The cluster of a file; mistakes are told without their places, which are in no file that stays."""
    names = known_names(partial.parent)
    try:
        return resolve.load(partial, facts=known_facts, check_secrets=False, bases=names).cluster
    except ConfigError as error:
        wrong = [one for one in error.diagnostics if one.severity is Severity.ERROR]
        if not wrong:
            raise
        message = "; ".join(dict.fromkeys(map(_sentence, wrong)))
        raise ConfigError(message, hint=next((d.hint for d in wrong if d.hint), None)) from None


def _sentence(found: Diagnostic) -> str:
    return f"{found.path}: {found.message}" if found.path else found.message


def _publish(partial: Path, path: Path) -> None:
    """Rename, but never over a file: a link does both at once where the file system has links."""
    try:
        os.link(partial, path)
    except FileExistsError:
        refuse_existing(path)
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        refuse_existing(path)  # FAT and the like: as near as one gets
        partial.rename(path)
