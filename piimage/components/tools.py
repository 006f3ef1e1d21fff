"""The operator's scripts in `~/bin` of the first user. They themselves are in piimage/guest/bin and lib.

On the head, since it is the head that reaches all nodes; on all of them where ssh does so too
(`trust: mesh`). `resize` is for the node itself, so every node has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.components.contribution import Check, Contribution
from piimage.components.shipped import shipped
from piimage.delta import Delta, Directory, File, Symlink

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.delta import Entry
    from piimage.facts import Facts

_HOME = "/usr/lib/piimage"
#: For sessions that read no profile, as `ssh node0 testall` is, and for other users.
_PATH = "/usr/local/bin"
#: So that `ping` needs no right that a bake or a copy of the image may have lost (ping(8), icmp(7)).
_SYSCTL = "/etc/sysctl.d/60-piimage-ping.conf"
_PING = b"net.ipv4.ping_group_range = 0 2147483647\n"
#: Of the node itself. Not on everybody's PATH: xterm has a program of that name.
_LOCAL = "resize"


def packages(cluster: Cluster, role: Role) -> tuple[str, ...]:
    """What `resize` calls, and parallel-ssh where there is somebody to talk to."""
    return ("growpart", "parallel-ssh") if role.head and len(cluster.nodes) > 1 else ("growpart",)


def image(cluster: Cluster, role: Role, _facts: Facts) -> Contribution:
    """Scripts, links to them, and the list of nodes at hand."""
    user = cluster.users[0]
    everything = role.head or cluster.ssh.trust == "mesh"
    entries: dict[str, Entry] = {
        f"{user.home}/bin": Directory(0o755, user.uid, user.gid),
        _SYSCTL: File(_PING),
    }
    for name, content in shipped("bin").items():
        if not everything and name != _LOCAL:
            continue
        script = f"{_HOME}/bin/{name}"
        entries[script] = File(content, mode=0o755)
        entries[f"{user.home}/bin/{name}"] = Symlink(script, user.uid, user.gid)
        if name != _LOCAL:
            entries[f"{_PATH}/{name}"] = Symlink(script)
    if everything:
        entries[f"{user.home}/nodes"] = Symlink(slots.NODES, user.uid, user.gid)
        for name, content in shipped("lib").items():
            entries[f"{_HOME}/lib/{name}"] = File(content)
    check = Check(name="~/bin", argv=("test", "-x", f"{user.home}/bin/{_LOCAL}"), user=user.name)
    return Contribution(delta=Delta.of("tools", entries), checks=(check,))
