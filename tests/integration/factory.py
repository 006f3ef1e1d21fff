"""A cluster of 64 nodes over a phony base, and ways to run piimage there; what of it nobody may find."""

from __future__ import annotations

import base64
import json
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from launches import Launches

NODES = 64
PASSWORD, CLEAR, ROOT = "env password 31415", "clear password 27182", "file password 16180"
PASSPHRASE = "a passphrase 14142"
HASH = "$y$j9T$saltsaltsalt$" + "Hash" * 10 + "abc"
SLOT_KEY, SLOT_CERT = "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key-cert.pub"
SEED = "/var/lib/cloud/seed/nocloud"
YAML = """\
version: 1
name: NAME
base: phony
timezone: Europe/Rome
domain: lab.example
users:
  - {name: ada, uid: 1000, rename_from: auto, sudo: nopasswd, password: {hash: "HASH"}}
  - {name: ops, uid: 1001, password: "env:OPS_PASSWORD"}
  - {name: third, uid: 1002, password: "CLEAR"}
root: {password: "file:root.secret"}
network:
  wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}
  wifi: {ssid: lab, country: IT, psk: "env:LAB_PSK"}
roles:
  head: {}
  worker: {wifi: false, overlays: [motd, site]}
nodes: {count: 64, name: "node{n:02}", head: 0}
"""


SITE = {
    "overlay.yaml": """\
files:
  /home/ada/.config/site/name: {per_node: true}
  /usr/share/site/key: {mode: "0640", owner: ops}
  /var/opt/site: {mode: "2775", group: third}
replaces: [/etc/sysctl.d/60-piimage-ping.conf]
removes: [/etc/netplan, /etc/debian_version]
enable: [site.service]
""",
    "rootfs/etc/sysctl.d/60-piimage-ping.conf": "# none\n",
    "rootfs/etc/systemd/system/site.service": "[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n",
    "rootfs/home/ada/.config/site/name.j2": "{{ node.name }} of {{ cluster.name }}\n",
    "rootfs/usr/share/site/key": "not a secret\n",
    "rootfs/usr/share/site/os.j2": "{{ os.id }} {{ os.version }} {{ os.architecture }}",
    "rootfs/var/opt/site/.gitkeep": "",
}


@dataclass
class Factory:
    """A directory with a cluster.yaml, a cache with the base, and ways to run piimage there."""

    home: Path
    launches: Launches
    more: dict[str, str] = field(default_factory=dict)

    @property
    def dist(self) -> Path:
        return self.home / "dist" / "abacus"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    def environment(self) -> dict[str, str]:
        return {
            **self.launches.environment(),
            "PIIMAGE_CACHE": str(self.cache),
            "OPS_PASSWORD": PASSWORD,
            "LAB_PSK": PASSPHRASE,
            "NO_COLOR": "1",
            **self.more,
        }

    def start(
        self, *argv: object, limit: int | None = None, before: Sequence[str] = (), **options: Any
    ) -> subprocess.Popen[str]:
        def limited() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.Popen(
            [*before, sys.executable, "-m", "piimage", *map(str, argv)],
            cwd=self.home, env=self.environment(), preexec_fn=limited,  # noqa: PLW1509 -- no threads here
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip

    def run(self, *argv: object, expect: int = 0, **options: Any) -> tuple[str, str]:
        child = self.start(*argv, **options)
        said, told = child.communicate(timeout=900)
        assert child.returncode == expect, (said, told)
        assert "Traceback" not in told
        return said, told

    def manifest(self) -> dict[str, Any]:
        return json.loads((self.dist / "manifest.json").read_bytes())


def factory_at(home: Path, launches: Launches, name: str = "abacus") -> Factory:
    home.mkdir(exist_ok=True)
    (home / "root.secret").write_text(f"{ROOT}\n")
    (home / "root.secret").chmod(0o600)
    text = YAML.replace("NAME", name).replace("HASH", HASH).replace("CLEAR", CLEAR)
    (home / "cluster.yaml").write_text(text)
    for path, words in SITE.items():
        (home / "overlays/site" / path).parent.mkdir(parents=True, exist_ok=True)
        (home / "overlays/site" / path).write_text(words)
    (home / "overlays/site/rootfs/usr/share/site/link").symlink_to("key")
    return Factory(home, launches)


@dataclass(frozen=True)
class Built:
    factory: Factory
    said: str
    told: str
    launched: int
    after_kill: list[str]
    planned: str


def files(*places):
    return sorted(
        str(path.relative_to(place))
        for place in places
        for path in place.rglob("*")
        if path.is_file() and "locks" not in path.parts
    )


def forms(secret: bytes):
    """The ways in which a secret could stand somewhere: as it is, in hex, in base64 at each alignment."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        yield base64.b64encode(b"\0" * shift + secret)[4:-4].strip(b"=")


def secrets_of(factory):
    """Name -> the bytes that nobody may find."""
    state = factory.home / "cluster.state"
    found = {
        "password": PASSWORD.encode(), "clear": CLEAR.encode(), "root": ROOT.encode(),
        "passphrase": PASSPHRASE.encode(), "hash": HASH.encode(),
    }  # fmt: skip
    for user, value in json.loads((state / "passwords.json").read_bytes()).items():
        found[f"hash of {user}"] = value.encode()
    for path in [state / "ca", state / "id", *sorted((state / "hosts").glob("node[0-9][0-9]"))]:
        pem = path.read_bytes()
        found[f"{path.name} (PEM)"] = pem.splitlines()[3]
        key = load_ssh_private_key(pem, None)
        assert isinstance(key, Ed25519PrivateKey)
        found[path.name] = key.private_bytes_raw()
    found["psk"] = subprocess.run(
        ["openssl", "kdf", "-keylen", "32", "-kdfopt", "digest:SHA1", "-kdfopt", f"pass:{PASSPHRASE}",
         "-kdfopt", "salt:lab", "-kdfopt", "iter:4096", "-binary", "PBKDF2"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    return found


def squeezed(path):
    """The file's bytes, with blocks of nothing but zeros as one zero."""
    data = path.read_bytes()
    zero, blocks = bytes(4096), []
    for at in range(0, len(data), 4096):
        block = data[at : at + 4096]
        blocks.append(b"\0" if block == zero[: len(block)] else block)
    return b"".join(blocks)


def found_in(haystack, secrets):
    return sorted(
        name for name, secret in secrets.items() if any(f in haystack for f in forms(secret))
    )
