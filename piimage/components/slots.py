"""The slots: fixed-size files that a variant reserves and a stamp fills.

Sizes are part of a variant, so they follow from how many nodes there are, never from what they are
called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.delta import Slot
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from piimage.cluster import Cluster, User

_KIB = 1024

SEED = "/var/lib/cloud/seed/nocloud"
USER_DATA, META_DATA, NETWORK = f"{SEED}/user-data", f"{SEED}/meta-data", f"{SEED}/network-config"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
HOST_PUBLIC = f"{HOST_KEY}.pub"
HOST_CERTIFICATE = f"{HOST_KEY}-cert.pub"
HOSTS = "/etc/hosts"
KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
NODES = "/etc/piimage/nodes"
SSH_CONFIG = "/etc/ssh/ssh_config.d/10-piimage.conf"
CLUSTER = "/etc/piimage/cluster.json"
HOSTFILE = "/etc/piimage/hostfile"

#: Longest host name (RFC 1123), and room for an address, a separator or two and a key of its own.
_NAME, _ADDRESS, _PUBLIC_KEY = 63, 15, 100
#: A node's words in the roster without names: keys, quotes, indentation, numbers.
_ROSTER = 120


def grown(default: int, need: int) -> int:
    """`default` bytes, or the power of two that holds twice what is needed now."""
    size = default
    while size < 2 * need:
        size *= 2
    return size


def hosts(cluster: Cluster) -> Slot:
    """/etc/hosts: address, name and qualified name per node."""
    line = _ADDRESS + 2 * _NAME + len(cluster.domain or "") + 4
    return Slot(grown(32 * _KIB, line * len(cluster.nodes)), mode=0o644)


def known_hosts(cluster: Cluster) -> Slot:
    """/etc/ssh/ssh_known_hosts: every name twice, once for the CA and once with the host's key."""
    names = _ADDRESS + 2 * _NAME + len(cluster.domain or "") + 4
    return Slot(grown(64 * _KIB, (2 * names + _PUBLIC_KEY) * len(cluster.nodes)), mode=0o644)


def nodes(cluster: Cluster) -> Slot:
    """/etc/piimage/nodes: one name per line."""
    return Slot(grown(16 * _KIB, (_NAME + 1) * len(cluster.nodes)), mode=0o644)


def ssh_config(cluster: Cluster) -> Slot:
    """The ssh client's settings: every name once, and the same few lines after them."""
    names = _ADDRESS + 2 * _NAME + len(cluster.domain or "") + 4
    return Slot(grown(16 * _KIB, names * len(cluster.nodes)), mode=0o644)


def cluster_key(user: User) -> tuple[str, Slot, Slot]:
    """The path of the cluster's private key in a user's home, its slot, and that of the public half."""
    private = Slot(4 * _KIB, uid=user.uid, gid=user.gid)
    public = Slot(4 * _KIB, mode=0o644, uid=user.uid, gid=user.gid)
    return f"{user.home}/.ssh/id_cluster", private, public


def cluster(cluster: Cluster) -> Slot:
    """/etc/piimage/cluster.json: the roster of all nodes, and a few lines about the whole."""
    line = _ROSTER + _ADDRESS + 2 * _NAME
    shares = sum(len(share.path) + _ADDRESS + _NAME + 80 for share in cluster.shares)
    return Slot(grown(32 * _KIB, 1024 + line * len(cluster.nodes) + shares), mode=0o644)


def hostfile(cluster: Cluster) -> Slot:
    """/etc/piimage/hostfile: name and slots per node."""
    return Slot(grown(16 * _KIB, (_NAME + len(" slots=1024\n")) * len(cluster.nodes)), mode=0o644)


def user_data(cluster: Cluster) -> Slot:
    """The cloud-init user-data: grows with the users, whose hashes it carries."""
    return Slot(grown(32 * _KIB, 256 * len(cluster.users)))


def authorized_keys(user: User) -> tuple[str, Slot]:
    """The path and the slot of a user's authorized_keys."""
    slot = Slot(16 * _KIB, uid=user.uid, gid=user.gid)
    return f"{user.home}/.ssh/authorized_keys", slot


def fit(path: str, content: bytes, slot: Slot) -> bytes:
    """`content` unchanged if the slot holds it; raises `PiimageError` naming slot and limit."""
    if len(content) > slot.size:
        raise PiimageError(
            f"`{path}` needs {len(content)} bytes, but its slot has {slot.size}",
            hint="a variant reserves this room; put fewer keys or users into cluster.yaml",
        )
    return content
