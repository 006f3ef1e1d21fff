"""Cluster, roles, nodes: what cluster.yaml means once profiles are merged and every default is settled.

Frozen and free of secrets: passwords and passphrases are still references here (`SecretRef`).
`piimage.resolve` makes these, components read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network
    from pathlib import Path


class Sudo(StrEnum):
    """How far a user may go with sudo."""

    NONE = "none"
    PASSWORD = "password"  # noqa: S105 -- a policy, not a password
    NOPASSWD = "nopasswd"


class Target(StrEnum):
    """The systemd target a node boots into."""

    MULTI_USER = "multi-user"
    GRAPHICAL = "graphical"


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret comes from: `kind` is `env`, `file`, `hash` (crypt(5) or 64 hex digits) or `clear`.

    `value` is a variable's name, an absolute path, the hash, or the secret itself (accepted with a warning).
    `repr` shows neither a hash nor a clear text.
    """

    kind: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRef:
    """An ssh public key: `kind` is `file` (absolute path), `key` (the line itself), `gh` or `lp` (a name)."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One account, the same numbers on every node.

    `groups` are logical names (`admin`, `video`, `gpio`...), resolved per distro. `rename_from` is `auto`
    (the image's own first user, if it has one), a name, or None. `password` None means locked.
    """

    name: str
    uid: int
    gid: int
    group: str
    home: str
    shell: str = "/bin/bash"
    gecos: str = ""
    groups: tuple[str, ...] = ()
    sudo: Sudo = Sudo.NONE
    ssh_keys: tuple[KeyRef, ...] = ()
    password: SecretRef | None = None
    rename_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wifi:
    """The access point; `country` is ISO 3166 alpha-2, `psk` a passphrase reference or a 64-digit hash."""

    ssid: str
    country: str
    psk: SecretRef
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A folder exported by the node `server` and mounted by all others at the same `path`.

    `owner` is a user of the cluster or `root`.
    """

    path: str
    server: str
    owner: str = "root"
    mode: int = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Mpi:
    """The MPI flavour of the whole cluster and the ranks per node.

    With `smoke_at_boot` the head tests the cluster once, at its first boot.
    """

    flavour: str = "openmpi"
    slots: int = 4
    smoke_at_boot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Blinkt:
    """What the light bars show after a boot (`load`, `larson`, `status` or `off`); `brightness` is 1 to 31."""

    show: str = "status"
    brightness: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssh:
    """What sshd allows."""

    password_authentication: bool = True
    x11_forwarding: bool = False
    trust: str = "star"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What nodes of one kind share: everything of a variant that is not identity.

    `base` is a catalog name, or an absolute path or URL (it holds a `/`); `base_sha256` is of that file.
    `serves` are the paths of the shares that its node exports: a server has a variant of its own.
    """

    name: str
    head: bool
    base: str
    base_sha256: str | None = None
    target: Target = Target.MULTI_USER
    wifi: bool = True
    packages: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    cmdline: tuple[str, ...] = ()
    config_txt: tuple[str, ...] = ()
    serves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayFile:
    """One path of an overlay: `kind` is `file`, `template` (jinja2 text in `content`), `link` or `dir`.

    `owner` and `group` are names, or None for root's, below a user's home for the user's. `per_node` templates are
    filled by stamps. `source` is the file's own path, for messages.
    """

    path: str
    kind: str
    source: str
    content: bytes = field(repr=False, default=b"")
    target: str = ""
    mode: int = 0o644
    owner: str | None = None
    group: str | None = None
    per_node: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Files of the user's for the root of nodes, with what goes with them.

    `replaces` are paths that it writes in place of a component or of an overlay before it, `removes` paths that go.
    """

    name: str
    files: tuple[OverlayFile, ...] = ()
    replaces: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One board. `number` is its place in cluster.yaml (0 is first); `address` its wired address and prefix.

    `role` is already merged with what the node itself sets (profiles, overlays, `wifi`), so two nodes
    with equal `role` share a variant. `cmdline` holds tokens of this node alone, which are stamped.
    """

    number: int
    name: str
    role: Role
    address: IPv4Interface
    mac: str | None = None
    board: str | None = None
    cmdline: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The resolved cluster. `directory` is where cluster.yaml lies: relative paths start there.

    `gateway` is the default route over the wire, `dns` who is asked there; without a gateway both are Wi-Fi's.

    `overlays` has those that some role uses.
    """

    name: str
    directory: Path
    source: Path
    nodes: tuple[Node, ...]
    users: tuple[User, ...]
    root_password: SecretRef | None
    subnet: IPv4Network
    timezone: str
    locale: str
    keymap: str
    ntp_servers: tuple[str, ...]
    ssh: Ssh = field(default_factory=Ssh)
    wifi: Wifi | None = None
    shares: tuple[Share, ...] = ()
    mpi: Mpi | None = None
    domain: str | None = None
    gateway: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    stress: bool = False
    wolfram: bool = False
    blinkt: Blinkt | None = None
    overlays: tuple[Overlay, ...] = ()

    @property
    def head(self) -> Node:
        """The one node whose role is head (resolve guarantees exactly one)."""
        return next(node for node in self.nodes if node.role.head)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Distinct roles in node order: one variant each."""
        return tuple(dict.fromkeys(node.role for node in self.nodes))

    @property
    def addresses(self) -> dict[str, IPv4Address]:
        """Node name -> wired address, in node order."""
        return {node.name: node.address.ip for node in self.nodes}

    def node(self, name_or_number: str) -> Node:
        """Find a node by name or by number; raises `KeyError`."""
        for node in self.nodes:
            if name_or_number in (node.name, str(node.number)):
                return node
        raise KeyError(name_or_number)
