"""Shares: a folder that one node exports over NFSv4 and all others mount when it is first used.

Nothing waits for a server: an automount is there at once, the mount follows on access and is tried anew
at the next. A mount is `hard`, since `soft` loses data in silence (nfs(5)); so that a dead server cannot
hold up a shutdown, a service lets go of its shares then.

Unit names, and that rpcbind and statd may be masked where only version 4 is spoken: nfs.systemd(7) of
nfs-utils 2.8.3 and the packages nfs-kernel-server and nfs-common of Debian 13.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.components import nfs_release
from piimage.components.contribution import Check, Contribution
from piimage.components.textfile import add_options, rewritten
from piimage.components.unit_text import literal, unit_name
from piimage.delta import Delta, Directory, File
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from piimage.cluster import Cluster, Role, Share
    from piimage.delta import Entry
    from piimage.facts import Facts

_UNITS = "/etc/systemd/system"
_EXPORTS = "/etc/exports.d/piimage.exports"
_SERVER_CONF = "/etc/nfs.conf"
#: nfs-utils 1.3 (bullseye, buster) knows no such file: a unit makes options of programs from the variables here.
_DEFAULTS, _FROM_DEFAULTS = "/etc/default/nfs-kernel-server", "nfs-config.service"
_SERVER, _CLIENT = "nfs-server.service", "nfs-client.target"
#: Only versions 2 and 3 want these, and the last one only pNFS on block devices.
_UNWANTED = (
    "rpcbind.service",
    "rpcbind.socket",
    "rpc-statd.service",
    "rpc-statd-notify.service",
    "nfs-blkmap.service",
)

#: A lease of 30 s instead of 90: a client comes back that much sooner (it waits up to a lease between two
#: attempts), and after a power cut of all nodes files can be opened 30 s after the server's start.
_NFSD = "[nfsd]\nvers3=n\nlease-time=30\ngrace-time=30\n"
_OPTIONS = {
    "RPCNFSDOPTS": ("--no-nfs-version=3", "--lease-time=30", "--grace-time=30"),
    "RPCMOUNTDOPTS": ("--no-nfs-version=2", "--no-nfs-version=3"),
}

#: No delegations (nfsd gives one of writing since Linux 6.6). A client that has one keeps a file that its
#: program has closed; whoever opens it on the server waits until it is handed back, and nfsd may still hold
#: it then: `execve` says ETXTBSY to one of two ranks of a program just linked on another node.
_SYSCTL = "/etc/sysctl.d/60-piimage-nfs.conf"
_LEASES = b"fs.leases-enable = 0\n"


def packages(cluster: Cluster, role: Role) -> tuple[str, ...]:
    """Logical names: a server of one share may be a client of another."""
    server = ("nfs-server",) if role.serves else ()
    return (*server, "nfs-client") if _mounted(cluster, role) else server


def _mounted(cluster: Cluster, role: Role) -> list[Share]:
    return [share for share in cluster.shares if share.path not in role.serves]


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """Exports or mounts; raises `UnsupportedError` for a base without the packages they need."""
    if not cluster.shares:
        return Contribution()
    entries: dict[str, Entry] = {}
    enable: list[str] = []
    checks: list[Check] = [_no_port_mapper()]
    if role.serves:
        _require(facts, _SERVER, "NFS server")
        entries |= _exports(cluster, role, facts)
        enable.append(_SERVER)
        checks += _server_checks(cluster, role)
    mounted = _mounted(cluster, role)
    if mounted:
        _require(facts, _CLIENT, "NFS client")
        entries |= nfs_release.entries(share.path for share in mounted)
        enable.append(nfs_release.UNIT)
    for share in mounted:
        _check_place(share, facts)
        address = cluster.addresses[share.server]
        entries |= _mount(share, address)
        enable.append(unit_name(share.path, ".automount"))
        checks += _client_checks(share, address)
    return Contribution(
        delta=Delta.of("nfs", entries),
        enable=tuple(enable),
        mask=tuple(name for name in _UNWANTED if name in facts.units),
        checks=tuple(checks),
    )


def _require(facts: Facts, unit: str, what: str) -> None:
    if unit not in facts.units:
        raise UnsupportedError(
            f"the base has no {what}, which `shares` needs ({facts.os.pretty})",
            hint=f"a build brings the packages in; a base made by hand needs the unit {unit}",
        )


def _check_place(share: Share, facts: Facts) -> None:
    """A mount point that is a link or a file would be another's."""
    fact = facts.files.get(share.path)
    if fact is not None and fact.kind != "dir":
        raise UnsupportedError(
            f"the base has a {fact.kind} at `{share.path}`, where a share should be",
            hint="give the share another `path`",
        )


def _exports(cluster: Cluster, role: Role, facts: Facts) -> dict[str, Entry]:
    """The folders, who may mount them, and the one version spoken."""
    users = {user.name: user for user in cluster.users}
    entries: dict[str, Entry] = {
        _EXPORTS: File(exports_text(cluster, role).encode()),
        **_version(facts),
        _SYSCTL: File(_LEASES),
    }
    for share in cluster.shares:
        if share.path in role.serves:
            _check_place(share, facts)
            owner = users.get(share.owner)
            uid, gid = (owner.uid, owner.gid) if owner else (0, 0)
            entries[share.path] = Directory(share.mode, uid, gid)
    return entries


def _version(facts: Facts) -> dict[str, Entry]:
    """Version 4 alone, and its times."""
    if facts.has(_SERVER_CONF):
        return {f"{_SERVER_CONF}.d/10-piimage.conf": File(_NFSD.encode())}
    if _FROM_DEFAULTS not in facts.units:
        raise UnsupportedError(
            f"the base's NFS server has neither {_SERVER_CONF} nor the unit {_FROM_DEFAULTS}",
            hint="use the distribution's own package nfs-kernel-server or nfs-utils",
        )
    text = facts.text(_DEFAULTS)
    for name, options in _OPTIONS.items():
        text = add_options(text, name, *options)
    return {_DEFAULTS: rewritten(facts, _DEFAULTS, text)}


def exports_text(cluster: Cluster, role: Role) -> str:
    """exports(5): read and write for the wire, root squashed; `no_subtree_check` keeps exportfs quiet."""
    return "".join(
        f"{path} {cluster.subnet}(rw,sync,no_subtree_check)\n" for path in sorted(role.serves)
    )


def _mount(share: Share, address: IPv4Address) -> dict[str, Entry]:
    """Mount point, `.mount` and `.automount`. Under a mount that is not there nobody but root may write."""
    return {
        share.path: Directory(),
        f"{_UNITS}/{unit_name(share.path, '.mount')}": File(mount_text(share, address).encode()),
        f"{_UNITS}/{unit_name(share.path, '.automount')}": File(automount_text(share).encode()),
    }


def mount_text(share: Share, address: IPv4Address) -> str:
    """systemd.mount(5). Without a limit of starts: five failures in ten seconds would end the automount for good.

    `timeo` is in tenths of a second: a connection to a server that is gone is given up after three times
    as long. `lookupcache=positive`: what was looked for too early on a node is found as soon as it is there.
    """
    return f"""\
[Unit]
Description=Share {literal(share.path)} of {share.server}
StartLimitIntervalSec=0

[Mount]
What={address}:{literal(share.path)}
Where={literal(share.path)}
Type=nfs4
Options=rw,hard,nosuid,nodev,timeo=100,lookupcache=positive
TimeoutSec=30
"""


def automount_text(share: Share) -> str:
    """systemd.automount(5): mounted on access, and never given up for idleness."""
    return f"""\
[Unit]
Description=Share {literal(share.path)} of {share.server}, when used

[Automount]
Where={literal(share.path)}

[Install]
WantedBy=multi-user.target
"""


def _no_port_mapper() -> Check:
    return Check(name="no port mapper", argv=("ss", "-Hlntu", "sport = :111"), expect=r"\A\Z")


def _server_checks(cluster: Cluster, role: Role) -> list[Check]:
    checks = [
        Check(name="NFS server", argv=("systemctl", "is-active", _SERVER), expect="^active$"),
        Check(name="NFS port", argv=("ss", "-Hlnt", "sport = :2049"), expect=":2049"),
        Check(name="no delegations", argv=("cat", "/proc/sys/fs/leases-enable"), expect=r"\A0$"),
    ]
    for path in role.serves:
        line = rf"^{re.escape(path)}\s+{re.escape(str(cluster.subnet))}\(rw,"
        argv = ("cat", "/var/lib/nfs/etab")
        checks.append(Check(name=f"export of {path}", argv=argv, expect=line))
    return checks


def _client_checks(share: Share, address: IPv4Address) -> list[Check]:
    automount = unit_name(share.path, ".automount")
    used = f"timeout -s KILL 100 ls {share.path} >/dev/null && findmnt -n -t nfs4 -o SOURCE {share.path}"
    return [
        Check(
            name=f"automount of {share.path}",
            argv=("systemctl", "is-active", automount),
            expect="^active$",
        ),
        Check(
            name=f"share {share.path}",
            argv=("sh", "-c", used),
            expect=f"^{re.escape(f'{address}:{share.path}')}$",
            needs_cluster=True,
        ),
    ]
