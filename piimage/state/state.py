"""The state directory: what a cluster *is* beyond its cluster.yaml.

    NAME.state/            0700, beside NAME.yaml
      state.json           version, cluster name, when it was made
      ca, ca.pub           the host CA: signs every node's host key
      id, id.pub           the cluster's own key pair: node 0 and `piimage boot` log in with it
      hosts/NODE{,.pub,-cert.pub}
      passwords.json       hashes made from clear text, kept so that a rebuild gives the same bytes
      imported_keys.json   ssh keys of gh:NAME and lp:NAME as they were when first asked for
      cards.json           which card became which node, when, from which build

Keys are made once and kept, so that a node burnt anew is known at once. Losing the directory means new
trust for every card; `export` and `import_` carry it to another machine.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piimage.components.contribution import HostKey, Secrets
from piimage.disk.atomic import replacing, write_bytes, write_errors
from piimage.errors import StateError
from piimage.progress import Quiet
from piimage.state import archive, cards, imported_keys, keys
from piimage.state.directory import ThereAlreadyError, check_private, draft, locked
from piimage.state.secrets import authorized_keys, password_hashes, wifi_psk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.progress import Progress
    from piimage.state.cards import CardRecord
    from piimage.state.imported_keys import Pin

VERSION = 1
#: What every state has; the rest is made where it is missing.
_ALWAYS = ("state.json", "ca", "ca.pub", "id", "id.pub")
_IMPORTED = "imported_keys.json"
_RESTORE = "bring it back from a backup with `piimage state import FILE`"


def location(cluster_yaml: Path) -> Path:
    """Where the state of `cluster_yaml` lives: `lab.yaml` has `lab.state` beside it."""
    return cluster_yaml.with_suffix(".state")


@dataclass(frozen=True, slots=True)
class State:
    """An opened state directory."""

    path: Path

    def secrets(
        self,
        cluster: Cluster,
        env: Mapping[str, str],
        progress: Progress | None = None,
        *,
        create: bool = True,
    ) -> Secrets:
        """Everything that stamps need, made or fetched where it is missing, if `create` allows.

        Raises `ConfigError` when a reference of cluster.yaml leads nowhere, `FetchError` when keys of `gh:` or
        `lp:` that were never fetched cannot be had, and `StateError` for keys that are missing and may not be
        made or fetched.
        """
        with locked(self.path):
            ca = self._ca()
            if not create:
                self._require_host_keys(cluster)
            hosts = {
                node.name: self._host_key(ca, node.name, self._principals(cluster, node.name))
                for node in cluster.nodes
            }
            passwords = password_hashes(cluster, env, self._known_hashes())
            self._write("passwords.json", json.dumps(passwords, indent=1, sort_keys=True).encode())
            wanted = imported_keys.names(cluster)
            pins = imported_keys.ensure(
                self.path / _IMPORTED, wanted, env, progress or Quiet(), allowed=create
            )
            return Secrets(
                host_keys=hosts,
                ca_public=self._read("ca.pub").decode().strip(),
                cluster_public=self._read("id.pub").decode().strip(),
                cluster_private=self._read("id"),
                passwords=passwords,
                psk=wifi_psk(cluster, env),
                authorized_keys=authorized_keys(cluster, pins),
            )

    def refresh(
        self, cluster: Cluster, env: Mapping[str, str], progress: Progress
    ) -> tuple[dict[str, Pin], dict[str, Pin]]:
        """Ask again for the keys of every `gh:` and `lp:` name, all or none; what was pinned, and what is now."""
        with locked(self.path):
            before = imported_keys.read(self.path / _IMPORTED)
            pins = imported_keys.fetch(imported_keys.names(cluster), env, progress)
            imported_keys.write(self.path / _IMPORTED, pins)
        return before, pins

    def cards(self) -> tuple[CardRecord, ...]:
        """The card of each node that has one."""
        return cards.read(self.path / cards.NAME)

    def record_card(self, new: CardRecord) -> None:
        """Remember that a card became a node."""
        with locked(self.path):
            cards.write(self.path / cards.NAME, cards.added(self.cards(), new))

    def forget_card(self, held: tuple[str, str]) -> None:
        """The card of this node and build is none any more; that of another build stays."""
        with locked(self.path):
            kept = [r for r in self.cards() if (r.node, r.build) != held]
            cards.write(self.path / cards.NAME, kept)

    def public_keys(self, cluster: Cluster) -> tuple[str, dict[str, str]]:
        """The public line of the CA, and that of each node whose key has been made; nothing is made here."""
        made = {
            node.name: self._read(f"hosts/{node.name}.pub").decode().strip()
            for node in cluster.nodes
            if (self.path / "hosts" / f"{node.name}.pub").exists()
        }
        return self._read("ca.pub").decode().strip(), made

    def check(self) -> str:
        """The name of the cluster that this state is of; raises `StateError` unless it is whole and ours to read."""
        for name in _ALWAYS:
            self._read(name)
        meta = self._json("state.json")
        if meta.get("version") != VERSION or not isinstance(meta.get("cluster"), str):
            raise StateError(f"`{self.path}` is not a state of this version of piimage")
        self._ca()
        return str(meta["cluster"])

    def _ca(self) -> keys.PrivateKey:
        try:
            return keys.load(self._read("ca"))
        except ValueError as error:
            raise StateError(
                f"`{self.path / 'ca'}` is not an ssh key of piimage", hint=_RESTORE
            ) from error

    @staticmethod
    def _principals(cluster: Cluster, name: str) -> tuple[str, ...]:
        """The names under which a client may know the node: name, full name, wired address."""
        names = [name, str(cluster.addresses[name])]
        if cluster.domain:
            names.append(f"{name}.{cluster.domain}")
        return tuple(sorted(names))

    def _require_host_keys(self, cluster: Cluster) -> None:
        missing = [n.name for n in cluster.nodes if not (self.path / "hosts" / n.name).exists()]
        if missing:
            raise StateError(
                f"`{self.path}` has no host key for {', '.join(f'`{name}`' for name in missing)}, and"
                " `--require-state` forbids making one",
                hint="run `piimage build` without it once, then keep the state",
            )

    def _host_key(self, ca: keys.PrivateKey, name: str, principals: tuple[str, ...]) -> HostKey:
        """The node's key pair and certificate; the certificate is signed anew when the principals changed."""
        private = self.path / "hosts" / name
        if not private.exists():
            self._write_pair(f"hosts/{name}", name)
        public = self._read(f"hosts/{name}.pub").decode().strip()
        certificate = f"hosts/{name}-cert.pub"
        if not (self.path / certificate).exists() or not keys.certifies(
            self._read(certificate).decode(), public, principals, ca
        ):
            signed = keys.certify_host(ca, public, name, principals)
            self._write(certificate, signed.encode() + b"\n", mode=0o644)
        return HostKey(
            private=self._read(f"hosts/{name}"),
            public=public,
            certificate=self._read(certificate).decode().strip(),
        )

    def _known_hashes(self) -> dict[str, str]:
        if not (self.path / "passwords.json").exists():
            return {}
        return {name: str(value) for name, value in self._json("passwords.json").items()}

    def _json(self, name: str) -> dict[str, Any]:
        with suppress(ValueError):
            found = json.loads(self._read(name))
            if isinstance(found, dict):
                return found
        raise StateError(f"`{self.path / name}` is damaged", hint=_RESTORE)

    def _write_pair(self, name: str, comment: str) -> None:
        private, public = keys.generate(comment)
        self._write(f"{name}.pub", public.encode() + b"\n", mode=0o644)
        self._write(name, private)

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise StateError(
                f"the state directory `{self.path}` has no `{name}`", hint=_RESTORE
            ) from error
        except OSError as error:
            raise StateError(
                f"`{self.path / name}` cannot be read: {(error.strerror or str(error)).lower()}",
                hint="it belongs to whoever ran the first build: run piimage as that user",
            ) from error

    def _write(self, name: str, content: bytes, *, mode: int = 0o600) -> None:
        """Write whole or not at all."""
        path = self.path / name
        if path.exists() and self._read(name) == content:
            return
        with write_errors(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
        write_bytes(path, content, mode=mode)


def open_state(cluster: Cluster, *, create: bool = True) -> State:
    """Open the cluster's state, making it if it is not there yet and `create` allows.

    Raises `StateError` when it is absent and may not be made, belongs to another cluster, or is readable
    by others.
    """
    path = location(cluster.source)
    if not path.exists():
        if not create:
            raise StateError(
                f"there is no state directory `{path}`, and `--require-state` forbids making one",
                hint="bring it here with `piimage state import FILE`",
            )
        with suppress(ThereAlreadyError):  # another process was quicker: its state is as good
            return init(cluster)
    check_private(path)
    state = State(path)
    name = state.check()
    if name != cluster.name:
        raise StateError(
            f"`{path}` is the state of cluster `{name}`, not of `{cluster.name}`",
            hint="move it away, or give the cluster its old name back",
        )
    return state


def init(cluster: Cluster) -> State:
    """Make a new state directory, whole or not at all; raises `StateError` if there is one already."""
    path = location(cluster.source)
    with draft(path) as place:
        made = State(place)
        made._write_pair("ca", f"{cluster.name} host CA")  # noqa: SLF001 -- same module
        made._write_pair("id", f"{cluster.name} cluster key")  # noqa: SLF001 -- same module
        (place / "hosts").mkdir(mode=0o700)
        meta = {"version": VERSION, "cluster": cluster.name}
        made._write("state.json", json.dumps(meta, indent=1).encode() + b"\n")  # noqa: SLF001 -- same module
    return State(path)


def export(cluster: Cluster, target: Path) -> None:
    """Write the state as a tar file that only the caller may read (0600).

    Raises `StateError` if there is a file of that name: it may be the only copy of an older state.
    """
    state = open_state(cluster, create=False)
    if target.exists():
        raise StateError(
            f"there is a file `{target}` already", hint="choose another name; nothing was changed"
        )
    with locked(state.path), replacing(target, mode=0o600) as partial:
        archive.write(state.path, partial)


def import_(cluster: Cluster, source: Path) -> State:
    """Unpack an exported state beside cluster.yaml; raises `StateError` if one is there or the file is not one."""
    path = location(cluster.source)
    contents = archive.read(source)
    with draft(path) as place:
        state = State(place)
        for name, content in contents.items():
            mode = 0o644 if name.endswith(".pub") else 0o600
            state._write(name, content, mode=mode)  # noqa: SLF001 -- same module
        try:
            name = state.check()
        except StateError as error:
            raise StateError(f"`{source}` is not an exported state, or not a whole one") from error
        if name != cluster.name:
            raise StateError(
                f"`{source}` is the state of cluster `{name}`, not of `{cluster.name}`"
            )
    return State(path)
