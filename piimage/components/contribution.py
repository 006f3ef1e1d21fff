"""What a component gives: the interface between one line of the recipe and the plan.

A component is a module of this package with up to five pure functions:

    packages(cluster, role) -> tuple[str, ...]      logical names of the packages that it needs on the image
    lacking(cluster, role, facts) -> tuple[str, ...] the same, of what this one base comes without
    preseed(cluster, role) -> tuple[str, ...]       lines for debconf-set-selections(1), before those
    image(cluster, role, facts) -> Contribution     the variant: no secret, no identity, no node in sight
    stamp(cluster, node, facts, secrets) -> Stamp   what makes the variant this node

`facts` are of the base with those packages installed; those of `lacking` are from before.

`plan/plan.py` runs them all, merges the fragments and lets the owner of each shared file render it once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage.delta import Delta

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A promise that can be asked of a running node: `argv` must exit 0 and print `expect` (a regex).

    `needs_cluster` is set where the answer depends on other nodes: a node that runs alone is not asked.
    """

    name: str
    argv: tuple[str, ...]
    expect: str = ""
    user: str | None = None
    needs_cluster: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MountLine:
    """One line of fstab(5) to add or, if `mountpoint` is there already, to replace."""

    spec: str
    mountpoint: str
    type: str
    options: tuple[str, ...] = ("defaults",)
    passno: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """The image-phase share of one component.

    `enable`, `disable` and `mask` are unit names. `cmdline` are kernel
    tokens; a token `key=value` replaces others of that key unless it is a `console=`. `config_txt` are lines
    for the firmware's config.txt. `deferred` says in words what must wait for first boot. `replaces` are paths of
    the delta that may be another component's before.
    """

    delta: Delta = field(default_factory=Delta)
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    cmdline: tuple[str, ...] = ()
    cmdline_drop: tuple[str, ...] = ()
    config_txt: tuple[str, ...] = ()
    mounts: tuple[MountLine, ...] = ()
    checks: tuple[Check, ...] = ()
    deferred: tuple[str, ...] = ()
    replaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """A node's ssh host key: OpenSSH private PEM, public line, and the CA's certificate line."""

    private: bytes = field(repr=False)
    public: str
    certificate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The state's content that stamps need, already resolved; never printed, never hashed into a variant.

    `passwords` maps user names (and `root`) to crypt(5) hashes; a user without one is locked.
    `psk` is 64 hex digits or None. `authorized_keys` maps user names to public key lines.
    """

    host_keys: Mapping[str, HostKey]
    ca_public: str
    cluster_public: str
    cluster_private: bytes = field(repr=False)
    passwords: Mapping[str, str] = field(repr=False, default_factory=dict)
    psk: str | None = field(repr=False, default=None)
    authorized_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The node-phase share of one component.

    `slots` fills paths that some `image` declared as `Slot`. `user_data` and `network` are top-level
    keys of the cloud-init user-data and network-config; the cloudinit component renders both.
    `firmware` are whole files (names relative to the firmware partition), `cmdline` tokens of this node.
    """

    slots: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    user_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    network: Mapping[str, Any] = field(default_factory=dict, repr=False)
    firmware: Mapping[str, bytes] = field(default_factory=dict)
    cmdline: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
