"""Secrets and keys as words, for a plan that is to be read: what is not there cannot be shown by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.contribution import HostKey, Secrets

if TYPE_CHECKING:
    from piimage.cluster import Cluster, KeyRef, User


def stand_ins(cluster: Cluster) -> Secrets:
    """Words in angle brackets for all that the state and references of `cluster` hold."""
    passwords = {user.name: _hash(user.name) for user in cluster.users if user.password}
    if cluster.root_password:
        passwords["root"] = _hash("root")
    return Secrets(
        host_keys={
            node.name: HostKey(
                private=f"<private host key of {node.name}>\n".encode(),
                public=f"ssh-ed25519 <host-key-of-{node.name}>",
                certificate=f"<host certificate of {node.name}>",
            )
            for node in cluster.nodes
        },
        ca_public="ssh-ed25519 <host-CA>",
        cluster_public="ssh-ed25519 <cluster-key>",
        cluster_private=b"<private key of the cluster>\n",
        passwords=passwords,
        psk="<Wi-Fi key>" if cluster.wifi else None,
        authorized_keys={user.name: _keys(user) for user in cluster.users},
    )


def stands_in(hash_: str) -> bool:
    """Whether a password hash is such a word: crypt(5) has none that begins so."""
    return hash_.startswith("<")


def _hash(name: str) -> str:
    return f"<password hash of {name}>"


def _keys(user: User) -> tuple[str, ...]:
    return tuple(map(_key, user.ssh_keys))


def _key(ref: KeyRef) -> str:
    """A key that stands in cluster.yaml as it is, else where it comes from."""
    return ref.value if ref.kind == "key" else f"<keys of {ref.kind}:{ref.value}>"
