"""The state directory: what a cluster *is* beyond its cluster.yaml.

    NAME.state/            0700, beside NAME.yaml
      state.json           version, cluster name, when it was made
      ca, ca.pub           the host CA: signs every node's host key
      id, id.pub           the cluster's own key pair: node 0 and `piimage boot` log in with it
      hosts/NODE{,.pub,-cert.pub}
      passwords.json       hashes made from clear text, kept so that a rebuild gives the same bytes

Keys are made once and kept, so that a node burnt anew is known at once. Losing the directory means new
trust for every card; `export` and `import_` carry it to another machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from piimage import keys
from piimage.components.contribution import HostKey, Secrets
from piimage.errors import StateError
from piimage.secrets import authorized_keys, password_hashes, wifi_psk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from piimage.cluster import Cluster

VERSION = 1


def location(cluster_yaml: Path) -> Path:
    """Where the state of `cluster_yaml` lives: `lab.yaml` has `lab.state` beside it."""
    return cluster_yaml.with_suffix(".state")


@dataclass(frozen=True, slots=True)
class State:
    """An opened state directory."""

    path: Path

    def secrets(self, cluster: Cluster, env: Mapping[str, str]) -> Secrets:
        """Everything that stamps need, made where it is missing.

        Raises `ConfigError` when a reference of cluster.yaml leads nowhere.
        """
        with self._locked():
            ca = keys.load(self._read("ca"))
            hosts = {
                node.name: self._host_key(ca, node.name, self._principals(cluster, node.name))
                for node in cluster.nodes
            }
            passwords = password_hashes(cluster, env, self._known_hashes())
            self._write("passwords.json", json.dumps(passwords, indent=1, sort_keys=True).encode())
            return Secrets(
                host_keys=hosts,
                ca_public=self._read("ca.pub").decode().strip(),
                cluster_public=self._read("id.pub").decode().strip(),
                cluster_private=self._read("id"),
                passwords=passwords,
                psk=wifi_psk(cluster, env),
                authorized_keys=authorized_keys(cluster),
            )

    @staticmethod
    def _principals(cluster: Cluster, name: str) -> tuple[str, ...]:
        """The names under which a client may know the node: name, full name, wired address."""
        names = [name, str(cluster.addresses[name])]
        if cluster.domain:
            names.append(f"{name}.{cluster.domain}")
        return tuple(sorted(names))

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
        path = self.path / "passwords.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def _write_pair(self, name: str, comment: str) -> None:
        private, public = keys.generate(comment)
        self._write(f"{name}.pub", public.encode() + b"\n", mode=0o644)
        self._write(name, private)

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise StateError(
                f"the state directory `{self.path}` has no `{name}`",
                hint="bring it back from a backup with `piimage state import FILE`",
            ) from error

    def _write(self, name: str, content: bytes, *, mode: int = 0o600) -> None:
        """Write whole or not at all."""
        path = self.path / name
        if path.exists() and path.read_bytes() == content:
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two builds at once must not make two keys for one node."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


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
        return init(cluster)
    _check_private(path)
    meta = json.loads(State(path)._read("state.json"))  # noqa: SLF001 -- same module
    if meta.get("cluster") != cluster.name:
        raise StateError(
            f"`{path}` is the state of cluster `{meta.get('cluster')}`, not of `{cluster.name}`",
            hint="move it away, or give the cluster its old name back",
        )
    return State(path)


def init(cluster: Cluster) -> State:
    """Make a new state directory, whole or not at all; raises `StateError` if there is one already."""
    path = location(cluster.source)
    if path.exists():
        raise StateError(f"there is a state directory `{path}` already", hint="nothing was changed")
    draft = State(Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-")))
    try:
        draft._write_pair("ca", f"{cluster.name} host CA")  # noqa: SLF001 -- same module
        draft._write_pair("id", f"{cluster.name} cluster key")  # noqa: SLF001 -- same module
        (draft.path / "hosts").mkdir(mode=0o700)
        meta = {"version": VERSION, "cluster": cluster.name}
        draft._write("state.json", json.dumps(meta, indent=1).encode() + b"\n")  # noqa: SLF001 -- same module
        draft.path.rename(path)
    except BaseException:
        shutil.rmtree(draft.path, ignore_errors=True)
        raise
    return State(path)


def export(cluster: Cluster, target: Path) -> None:
    """Write the state as a tar file that only the caller may read (0600)."""
    state = open_state(cluster, create=False)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted(state.path.rglob("*")):
                tar.add(path, arcname=str(path.relative_to(state.path)), recursive=False)
        Path(temporary).rename(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def import_(cluster: Cluster, source: Path) -> State:
    """Unpack an exported state beside cluster.yaml; raises `StateError` if one is there or the file is not one."""
    path = location(cluster.source)
    if path.exists():
        raise StateError(
            f"there is a state directory `{path}` already",
            hint="move it away first; nothing was changed",
        )
    draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        _unpack(source, draft)
        meta = json.loads((draft / "state.json").read_bytes())
        if meta.get("cluster") != cluster.name:
            raise StateError(
                f"`{source}` is the state of cluster `{meta.get('cluster')}`, not of `{cluster.name}`"
            )
        draft.rename(path)
    except (tarfile.TarError, FileNotFoundError, json.JSONDecodeError) as error:
        raise StateError(f"`{source}` is not an exported state: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return State(path)


def _unpack(source: Path, target: Path) -> None:
    """Take regular files one or two levels deep, nothing else: the file may come from anywhere."""
    with tarfile.open(source) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if member.isdir() and len(parts) == 1:
                (target / parts[0]).mkdir(mode=0o700, exist_ok=True)
                continue
            content = tar.extractfile(member) if member.isfile() else None
            if content is None or not 1 <= len(parts) <= 2 or ".." in parts or parts[0] == "/":  # noqa: PLR2004 -- see docstring
                raise StateError(f"`{source}` is not an exported state: it holds `{member.name}`")
            path = target.joinpath(*parts)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(content.read())
            path.chmod(0o644 if path.suffix == ".pub" else 0o600)


def _check_private(path: Path) -> None:
    """Refuse a state that others can read, as ssh refuses such a key."""
    if path.stat().st_mode & 0o077:
        raise StateError(
            f"the state directory `{path}` can be read by others",
            hint=f"`chmod 700 {path}`; consider its keys known if others use this machine",
        )
