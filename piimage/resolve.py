"""Resolve cluster.yaml: read it, check it, merge profiles, settle every default.

The way in for everything that works on a cluster. Reads files and the environment, changes nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from types import MappingProxyType
from typing import TYPE_CHECKING

from piimage.cluster import (
    Blinkt,
    Cluster,
    KeyRef,
    Mpi,
    Node,
    Overlay,
    Role,
    SecretRef,
    Share,
    Ssh,
    Sudo,
    Target,
    User,
    Wifi,
)
from piimage.errors import ConfigError
from piimage.report import Diagnostic, Severity, in_order, summary
from piimage.spec import checks, source
from piimage.spec.checks import overlays as overlay_checks
from piimage.spec.draft import draft
from piimage.spec.merge import Merged, merge
from piimage.spec.overlays import Rack
from piimage.spec.paths import located
from piimage.spec.profiles import Shelf
from piimage.spec.provenance import provenance
from piimage.spec.seats import HEAD, Seat, seats, traits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from piimage.facts import Facts
    from piimage.spec import model
    from piimage.spec.place import FieldPath
    from piimage.spec.references import BaseRef

#: Groups of a user who is at home on a Pi, by logical name; components skip those a base lacks.
DEFAULT_GROUPS = (
    "adm",
    "dialout",
    "cdrom",
    "audio",
    "video",
    "plugdev",
    "users",
    "input",
    "render",
    "netdev",
    "gpio",
    "i2c",
    "spi",
)
DEFAULT_BASE = "debian-13"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A valid cluster, the warnings and notes about it, and where each field's value came from.

    `provenance` maps fields such as `users[0].uid` and `nodes[2].target` to `FILE:LINE`, to
    `profile KIND/NAME (...)` or to `default`. What a role settles stands under each node.
    """

    cluster: Cluster
    diagnostics: tuple[Diagnostic, ...]
    provenance: Mapping[str, str]


def load(
    path: Path,
    *,
    env: Mapping[str, str] = os.environ,
    facts: Facts | Callable[[str], Facts | None] | None = None,
    check_secrets: bool = True,
    bases: Collection[str] = (),
    beside: Path | None = None,
) -> Loaded:
    """Read and resolve the cluster.yaml at `path`.

    `facts` of the base, or a function from a base's name or path to its facts if they are known,
    allow checks against accounts and time zones of the bases. Without
    `check_secrets`, variables and files that hold secrets or keys need not be there. `bases` are
    the names of the catalog; when given, others are refused. `beside` is where `profiles/` and
    `overlays/` lie, if not beside the file. Raises `ConfigError` with all mistakes.
    """
    document = source.read(path)
    result = draft(document)
    shelf = Shelf(beside or path.parent)
    spec: model.Spec | None = result.spec
    if spec is not None:
        outside = checks.Outside(
            directory=path.parent,
            env=env,
            facts_at=_facts(spec, path, env, facts),
            check_secrets=check_secrets,
            bases=bases,
        )
        checks.run(result, shelf, outside)
    # Merging reads every profile in use, so that mistakes in them are told with the rest.
    merged = (
        [(seat, merge(spec, seat, shelf, document)) for seat in seats(spec)]
        if spec is not None
        else []
    )
    rack = Rack(beside or path.parent)
    overlays = overlay_checks.check(result, shelf, rack) if spec is not None else []
    found = in_order([*result.findings, *shelf.findings, *overlays])
    if spec is None or any(finding.severity is Severity.ERROR for finding in found):
        raise ConfigError(f"`{path}` has {summary(found) or '1 error'}", diagnostics=found)
    builder = _Resolver(spec, path, env, merged, rack)
    return Loaded(
        cluster=builder.cluster(),
        diagnostics=found,
        provenance=MappingProxyType(provenance(spec, document, merged)),
    )


def _facts(
    spec: model.Spec,
    path: Path,
    env: Mapping[str, str],
    facts: Facts | Callable[[str], Facts | None] | None,
) -> dict[FieldPath, Facts]:
    """Facts of all bases that the spec names, as far as they are known, by who names them."""
    used = {where: traits.base for where, traits in traits_of(spec) if traits.base or not where}
    named = {where: _base(base, path, env) for where, base in used.items()}
    known = {
        name: facts(name) if callable(facts) else facts for name in dict.fromkeys(named.values())
    }
    return {where: found for where, name in named.items() if (found := known[name]) is not None}


def _base(base: BaseRef | None, path: Path, env: Mapping[str, str]) -> str:
    """The base as `Role.base` has it."""
    if base is None:
        return DEFAULT_BASE
    return str(located(base.value, path.parent, env)) if base.kind == "path" else base.value


@dataclass(frozen=True, slots=True)
class _Resolver:
    """Turns a checked spec into a `Cluster`."""

    spec: model.Spec
    path: Path
    env: Mapping[str, str]
    merged: list[tuple[Seat, Merged]]
    rack: Rack

    def cluster(self) -> Cluster:
        spec = self.spec
        nodes = tuple(self.node(seat, merged) for seat, merged in self.merged)
        return Cluster(
            name=spec.name,
            directory=self.path.parent.absolute(),
            source=self.path.absolute(),
            nodes=nodes,
            users=tuple(self.user(user) for user in spec.users),
            root_password=self.secret(spec.root.password),
            subnet=spec.network.wired.subnet,
            timezone=spec.timezone,
            locale=spec.locale,
            keymap=spec.keymap,
            ntp_servers=tuple(spec.time.servers),
            ssh=Ssh(
                password_authentication=spec.ssh.password_authentication,
                x11_forwarding=spec.ssh.x11_forwarding,
                trust=spec.ssh.trust,
            ),
            wifi=self.wifi(),
            shares=tuple(self.share(share) for share in spec.shares),
            mpi=self.mpi(),
            domain=spec.domain,
            gateway=spec.network.wired.gateway,
            dns=self.dns(),
            stress=spec.stress,
            wolfram=spec.wolfram,
            blinkt=self.blinkt(),
            overlays=self.overlays(),
        )

    def dns(self) -> tuple[IPv4Address, ...]:
        """Who is asked for names over the wire: a home's router answers them itself."""
        wired = self.spec.network.wired
        return tuple(wired.dns) or ((wired.gateway,) if wired.gateway else ())

    def overlays(self) -> tuple[Overlay, ...]:
        """All that some node uses, each once."""
        names = dict.fromkeys(name for _, merged in self.merged for name in merged.overlays)
        loaded = map(self.rack.get, names)
        return tuple(found.overlay for found in loaded if found is not None)

    def mpi(self) -> Mpi | None:
        mpi = self.spec.mpi
        if mpi is None:
            return None
        return Mpi(flavour=mpi.flavour, slots=mpi.slots, smoke_at_boot=mpi.smoke_at_boot)

    def wifi(self) -> Wifi | None:
        wifi = self.spec.network.wifi
        if wifi is None:
            return None
        psk = self.secret(wifi.psk) or wifi.psk
        return Wifi(ssid=wifi.ssid, country=wifi.country, psk=psk, hidden=wifi.hidden)

    def blinkt(self) -> Blinkt | None:
        bar = self.spec.blinkt
        return None if bar is None else Blinkt(show=bar.show, brightness=bar.brightness)

    def secret(self, ref: SecretRef | None) -> SecretRef | None:
        """The reference with an absolute path; None for a locked account."""
        if ref is None or ref.kind == "locked":
            return None
        if ref.kind != "file":
            return ref
        return SecretRef("file", str(located(ref.value, self.path.parent, self.env)))

    def key(self, ref: KeyRef) -> KeyRef:
        if ref.kind != "file":
            return ref
        return KeyRef("file", str(located(ref.value, self.path.parent, self.env)))

    def user(self, user: model.User) -> User:
        groups = DEFAULT_GROUPS if user.groups is None else tuple(dict.fromkeys(user.groups))
        return User(
            name=user.name,
            uid=user.uid,
            gid=user.uid if user.gid is None else user.gid,
            group=user.group or user.name,
            home=user.home or f"/home/{user.name}",
            shell=user.shell,
            gecos=user.gecos,
            groups=groups,
            sudo=Sudo(user.sudo),
            ssh_keys=tuple(dict.fromkeys(self.key(key) for key in user.ssh_keys)),
            password=self.secret(user.password),
            rename_from=user.rename_from,
        )

    def node(self, seat: Seat, merged: Merged) -> Node:
        role = Role(
            name=seat.role,
            head=seat.role == HEAD,
            base=_base(merged.base, self.path, self.env),
            base_sha256=merged.base.sha256 if merged.base else None,
            target=Target(merged.target or Target.MULTI_USER),
            wifi=merged.wifi is not False and self.spec.network.wifi is not None,
            packages=tuple(merged.packages),
            overlays=tuple(merged.overlays),
            cmdline=tuple(merged.cmdline),
            config_txt=tuple(merged.config_txt),
            serves=tuple(s.path for s in self.spec.shares if self.server(s) == seat.name),
        )
        return Node(
            number=seat.number,
            name=seat.name,
            role=role,
            address=IPv4Interface(f"{seat.address}/{self.spec.network.wired.subnet.prefixlen}"),
            mac=seat.entry.mac if seat.entry else None,
            board=seat.board,
            cmdline=tuple(seat.entry.cmdline) if seat.entry else (),
        )

    def server(self, share: model.Share) -> str:
        """The name of the node that `share.server` means: a node, else the one with that role."""
        places = [seat for seat, _ in self.merged]
        named = (seat.name for seat in places if seat.name == share.server)
        return next(named, None) or next(s.name for s in places if s.role == share.server)

    def share(self, share: model.Share) -> Share:
        owner = share.owner or self.spec.users[0].name
        return Share(
            path=share.path, server=self.server(share), owner=owner, mode=int(share.mode, 8)
        )
