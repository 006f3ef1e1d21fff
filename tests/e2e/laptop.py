"""A laptop beside a rehearsal: ssh as `piimage export` sets it up, with the rehearsal's port for the head."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def config(exported: Path, rehearsal: Path, head: str) -> Path:
    """An ssh_config before the exported one: the first value counts, and for `head` it is the rehearsal's port."""
    (port,) = re.findall(
        r"^\s*Port (\d+)$", (rehearsal / head / "ssh_config").read_text(), re.MULTILINE
    )
    path = exported.with_name("laptop_config")
    own = f"Host {head}\n    HostName 127.0.0.1\n    Port {port}\n"
    path.write_text(f'{own}Host *\n    Include "{exported}"\n', encoding="utf-8")
    return path


def ask(path: Path, node: str, command: str) -> subprocess.CompletedProcess[str]:
    """What a node answers; a question or a password would be an error."""
    argv = ["ssh", "-T", "-o", "BatchMode=yes", "-F", str(path), node, command]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
