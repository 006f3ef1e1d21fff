"""Which files an export writes, and what each of them needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from piimage.disk.atomic import write_bytes, write_errors
from piimage.errors import StateError
from piimage.export import ansible, imager, lists, picture, ssh
from piimage.export.way import PublicKeys, Way, way
from piimage.state import state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.progress import Progress

#: What the others cannot do without: ssh knows the nodes by the one, the rest goes by ssh.
_NEEDS = {
    "ansible": ("ssh-config", "known-hosts"),
    "pssh": ("ssh-config", "known-hosts"),
    "clush": ("ssh-config", "known-hosts"),
    "ssh-config": ("known-hosts",),
}
FORMATS = ("ansible", "ssh-config", "known-hosts", "hosts", "pssh", "clush", "rpi-imager", "svg")


@dataclass(frozen=True)
class Export:
    """An export of `cluster` to files in `directory`; `output` is where its images are.

    `door` is how the user calls the head, if not by what cluster.yaml says of it.
    """

    cluster: Cluster
    directory: Path
    output: Path
    progress: Progress = field(repr=False)
    door: str | None = None

    def write(self, formats: Sequence[str]) -> dict[str, Path]:
        """Write the files of these `FORMATS` and of what they need; returns them by format, in that order.

        All are made before one is written. Raises `StateError` when the cluster has no state yet, `PiimageError` for
        a format that there is nothing for, and `WriteFailedError`.
        """
        wanted = set(formats) | {need for name in formats for need in _NEEDS.get(name, ())}
        contents = {name: self._content(name) for name in FORMATS if name in wanted}
        with write_errors(self.directory):
            if (
                self.output in self.directory.parents
            ):  # `mkdir` gives the mode to the last one alone
                self.output.parent.mkdir(parents=True, exist_ok=True)
                self.output.mkdir(mode=0o700, exist_ok=True)
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in contents.items():
            write_bytes(self.path(name), content.encode())
        return {name: self.path(name) for name in contents}

    def possible(self) -> tuple[str, ...]:
        """All formats, but for that of images where there are none."""
        there = imager.images(self.cluster, self.output)
        return tuple(name for name in FORMATS if there or name != "rpi-imager")

    def path(self, name: str) -> Path:
        """Where the file of a format is, absolute."""
        names = {
            "ansible": "ansible.yaml",
            "ssh-config": "ssh_config",
            "known-hosts": "known_hosts",
            "hosts": "hosts",
            "pssh": "pssh_hosts",
            "clush": "clush.yaml",
            "rpi-imager": f"{self.cluster.name}.rpi-imager-manifest",
            "svg": f"{self.cluster.name}.svg",
        }
        return self.directory.absolute() / names[name]

    def _content(self, name: str) -> str:
        makers = {
            "ansible": lambda: ansible.inventory(self.cluster, self.path("ssh-config")),
            "ssh-config": lambda: ssh.ssh_config(self.cluster, self._way),
            "known-hosts": lambda: ssh.known_hosts(self.cluster, self._keys()),
            "hosts": lambda: ssh.hosts(self.cluster),
            "pssh": lambda: lists.pssh(self.cluster),
            "clush": lambda: lists.clush(self.cluster),
            "rpi-imager": lambda: imager.manifest(self.cluster, self.output, self.progress),
            "svg": lambda: picture.svg(self.cluster),
        }
        return makers[name]()

    def _keys(self) -> PublicKeys:
        ca, hosts = self._state.public_keys(self.cluster)
        return PublicKeys(ca=ca, hosts=hosts)

    @cached_property
    def _state(self) -> state.State:
        """The cluster's state, which an export does not make: it would be another than that of the cards."""
        if not state.location(self.cluster.source).exists():
            raise StateError(
                f"`{self.cluster.name}` has no state directory here, so its nodes' keys are not known",
                hint="`piimage state import FILE` brings it; `piimage state init` or the first build makes it",
            )
        return state.open_state(self.cluster, create=False)

    @cached_property
    def _way(self) -> Way:
        return way(
            self.cluster,
            state=self._state.path,
            known_hosts=self.path("known-hosts"),
            door=self.door,
        )
