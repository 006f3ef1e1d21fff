"""A card built over an image like a vendor's, by the commands that a user types."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.card import Card

#: What `env:LAB_PSK` in a cluster.yaml leads to.
PSK = "fedcba9876543210" * 4
#: A cluster of a head with all that it may have.
HEAD = """\
version: 1
name: hats
base: vendor
timezone: Europe/Rome
users:
  - {name: ada, uid: 1000, rename_from: auto, sudo: nopasswd, password: locked}
network:
  wired: {subnet: 10.77.0.0/16, first: 10.77.3.1}
  wifi: {ssid: "Lab 2", country: NO, psk: "env:LAB_PSK"}
shares: [{path: /srv/work, server: head}]
nodes: {count: 1, name: "n{n}", head: 0}
"""


def run(home: Path, *words: str) -> str:
    """What a command says on its standard output, given in `home` with the cache there; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "piimage", *words],
        cwd=home,
        env={**os.environ, "PIIMAGE_CACHE": str(home / "cache"), "LAB_PSK": PSK},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(home: Path, card: Card, cluster: str) -> Path:
    """The image, imported as base `vendor` for the `cluster` of this text, and node 0 built over it, all in `home`.

    Returns the vendor's image.
    """
    image = card.write(home / "vendor.img")
    (home / "cluster.yaml").write_text(cluster)
    run(home, "base", "import", str(image), "--name", "vendor")
    run(home, "build", "--node", "0")
    return image


def planned(home: Path) -> dict[str, str]:
    """What is made or changed on node 0 outside /boot: each path with its kind as matchpathcon has it."""
    said = run(home, "plan", "--node", "0")
    found = re.findall(r"^    [+~] (/\S+)(?:  \((directory|link)?)?", said, re.MULTILINE)
    kinds = {path: {"directory": "dir", "link": "link"}.get(kind, "file") for path, kind in found}
    return {path: kind for path, kind in kinds.items() if not path.startswith("/boot/")}
