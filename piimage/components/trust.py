"""Trust between the nodes: whoever holds the cluster's key gets from node to node without being asked.

The first user of cluster.yaml accepts that key everywhere (`users`), and every node knows all host keys
(`ssh`); here are the key itself and the client's settings. `star` gives it to the head, `mesh` to all.
Root and the other users get nothing: the settings name a file that they do not have, and passwords
work as the server allows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.components.contribution import Check, Contribution, Stamp
from piimage.components.ssh import host_names
from piimage.components.textfile import rewritten
from piimage.delta import Delta
from piimage.distros.openssh import reads_drop_ins

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

_CONFIG = "/etc/ssh/ssh_config"
#: ssh_config(5): keys that are named replace the usual ones, so these are named too.
_OWN_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


def holds_key(cluster: Cluster, role: Role) -> bool:
    """Whether nodes of `role` hold the cluster's private key."""
    return role.head or cluster.ssh.trust == "mesh"


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """Room for key and settings, and where the client reads no drop-ins (buster's) the line that has it do so."""
    if not holds_key(cluster, role):
        return Contribution()
    path, private, public = slots.cluster_key(cluster.users[0])
    entries: dict[str, Entry] = {
        path: private,
        f"{path}.pub": public,
        slots.SSH_CONFIG: slots.ssh_config(cluster),
    }
    text = facts.text(_CONFIG)
    if not reads_drop_ins(text, f"{_CONFIG}.d"):
        entries[_CONFIG] = rewritten(facts, _CONFIG, f"Include {_CONFIG}.d/*.conf\n\n{text}")
    return Contribution(delta=Delta.of("trust", entries))


def stamp(cluster: Cluster, node: Node, _facts: Facts, secrets: Secrets) -> Stamp:
    """The key, and the names and addresses that it is for."""
    if not holds_key(cluster, node.role):
        return Stamp()
    user = cluster.users[0]
    path, _, _ = slots.cluster_key(user)
    public = secrets.cluster_public.strip()
    return Stamp(
        slots={
            path: secrets.cluster_private,
            f"{path}.pub": public.encode() + b"\n",
            slots.SSH_CONFIG: config_text(cluster).encode(),
        },
        checks=(
            Check(
                name="cluster key",
                argv=("ssh-keygen", "-y", "-f", path),
                expect=f"^{re.escape(' '.join(public.split()[:2]))}",
                user=user.name,
            ),
            *(_login(cluster, name, alone=name == node.name) for name in cluster.addresses),
        ),
    )


def config_text(cluster: Cluster) -> str:
    """ssh_config(5) for the cluster's hosts alone; a file that is not there is passed over in silence."""
    names = [name for node in cluster.nodes for name in host_names(cluster, node)]
    path, _, _ = slots.cluster_key(cluster.users[0])
    own = f"~/.ssh/{path.rpartition('/')[2]}"
    keys = "".join(f"    IdentityFile {key}\n" for key in (own, *_OWN_KEYS))
    return f"Host {' '.join(names)}\n{keys}"


def _login(cluster: Cluster, name: str, *, alone: bool) -> Check:
    """A login without a prompt: an unknown host or a wanted password would be one."""
    return Check(
        name=f"ssh to {name}",
        argv=("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", name, "hostname"),
        expect=f"^{re.escape(name)}$",
        user=cluster.users[0].name,
        needs_cluster=not alone,
    )
