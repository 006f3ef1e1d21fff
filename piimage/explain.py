"""Every resolved field of a node with its value and where that came from, ready to be shown: no secret is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.cluster import Cluster, KeyRef, Node, SecretRef, User
    from piimage.resolve import Loaded

Scalar: TypeAlias = str | int | bool | None
Value: TypeAlias = Scalar | tuple[Scalar, ...]

#: Instead of a hash or of a password or key that stands in cluster.yaml itself.
HIDDEN = "(hidden)"


@dataclass(frozen=True, slots=True)
class Field:
    """One field by its path, such as `nodes[3].base` or `users[0].uid`.

    `origin` is `FILE:LINE`, `profile KIND/NAME (...)` or `default`, perhaps with a remark. `entries` has the origins
    of the values of a list, where they have some of their own.
    """

    path: str
    value: Value
    origin: str
    entries: tuple[str, ...] = ()


def of_node(loaded: Loaded, node: Node) -> tuple[Field, ...]:
    """What is the node's own, or settled for it by profiles and roles."""
    at = f"nodes[{node.number}]"
    role = node.role
    values: dict[str, Value] = {
        "name": node.name,
        "role": role.name,
        "address": str(node.address),
        "mac": node.mac,
        "board": node.board,
        "base": role.base,
        "target": str(role.target),
        "wifi": role.wifi,
        "packages": role.packages,
        "overlays": role.overlays,
        "cmdline": (*role.cmdline, *node.cmdline),
        "config_txt": role.config_txt,
    }
    return tuple(_field(loaded, f"{at}.{name}", value) for name, value in values.items())


def of_cluster(loaded: Loaded) -> tuple[Field, ...]:
    """What all nodes share."""
    return tuple(_field(loaded, path, value) for path, value in _cluster(loaded.cluster))


def _field(loaded: Loaded, path: str, value: Value) -> Field:
    origin = loaded.provenance.get(path, "default")
    entries: tuple[str, ...] = ()
    if isinstance(value, tuple):
        places = [f"{path}[{index}]" for index in range(len(value))]
        entries = tuple(loaded.provenance.get(place, origin) for place in places)
    return Field(path, value, origin, entries)


def _cluster(cluster: Cluster) -> Iterator[tuple[str, Value]]:
    """Paths as in cluster.yaml, values as they were settled."""
    for name in ("name", "timezone", "locale", "keymap", "domain"):
        yield name, getattr(cluster, name)
    for index, user in enumerate(cluster.users):
        for name, value in _user(user):
            yield f"users[{index}].{name}", value
    yield "root.password", _secret(cluster.root_password)
    yield "network.wired.subnet", str(cluster.subnet)
    yield "network.wired.gateway", str(cluster.gateway) if cluster.gateway else None
    yield "network.wired.dns", tuple(str(address) for address in cluster.dns)
    if cluster.wifi:
        yield "network.wifi.ssid", cluster.wifi.ssid
        yield "network.wifi.psk", _secret(cluster.wifi.psk)
        yield "network.wifi.country", cluster.wifi.country
        yield "network.wifi.hidden", cluster.wifi.hidden
    else:
        yield "network.wifi", None
    yield "time.servers", cluster.ntp_servers
    for name in ("password_authentication", "x11_forwarding", "trust"):
        yield f"ssh.{name}", getattr(cluster.ssh, name)
    for index, share in enumerate(cluster.shares):
        yield f"shares[{index}].path", share.path
        yield f"shares[{index}].server", share.server
        yield f"shares[{index}].owner", share.owner
        yield f"shares[{index}].mode", f"{share.mode:04o}"
    for name, fields in (
        ("mpi", ("flavour", "slots", "smoke_at_boot")),
        ("blinkt", ("show", "brightness")),
    ):
        part = getattr(cluster, name)
        if part is None:
            yield name, None
        else:
            yield from ((f"{name}.{field}", getattr(part, field)) for field in fields)
    yield "stress", cluster.stress
    yield "wolfram", cluster.wolfram


def _user(user: User) -> Iterator[tuple[str, Value]]:
    for name in ("name", "uid", "gid", "group", "home", "shell", "gecos", "groups"):
        yield name, getattr(user, name)
    yield "sudo", str(user.sudo)
    yield "ssh_keys", tuple(_key(key) for key in user.ssh_keys)
    yield "password", _secret(user.password)
    yield "rename_from", user.rename_from


def _secret(ref: SecretRef | None) -> str:
    """Where a secret comes from, never what it is."""
    if ref is None:
        return "locked"
    return f"{ref.kind}:{ref.value}" if ref.kind in ("env", "file") else HIDDEN


def _key(ref: KeyRef) -> str:
    return ref.value if ref.kind == "key" else f"{ref.kind}:{ref.value}"
