"""The same command on other nodes, over ssh, all at once."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = "piimage-blinkt"
NODES = Path("/etc/piimage/nodes")
ALL = "all"
_LIMIT = 40.0


class UnknownNodeError(Exception):
    """A name that is no node's; the message says which there are."""


def chosen(names: Sequence[str], path: Path = NODES) -> list[str]:
    """The nodes meant by `names`, in the cluster's order; raises `UnknownNodeError`."""
    try:
        known = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UnknownNodeError(f"{path}: {error.strerror}") from error
    for name in names:
        if name not in {*known, ALL}:
            raise UnknownNodeError(f"`{name}` is no node; there are {', '.join(known)}, or {ALL}")
    return known if ALL in names else [name for name in known if name in names]


def argv(node: str, words: Sequence[str]) -> list[str]:
    """The command line that runs the command with `words` as root on `node`."""
    there = ["sudo", "-n", COMMAND, *words]
    if node == socket.gethostname():
        return there
    return ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", node, *there]


def run_on(nodes: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Run it on all `nodes`; what went wrong, by node."""
    running = {
        node: subprocess.Popen(
            argv(node, words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for node in nodes
    }
    ended = {node: _ended(process) for node, process in running.items()}
    return {node: words for node, words in ended.items() if words}


def _ended(process: subprocess.Popen[str]) -> str:
    """Empty when it ended well, else the last line that it said."""
    try:
        _, said = process.communicate(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"no end within {_LIMIT:.0f} s"
    if process.returncode == 0:
        return ""
    lines = said.strip().splitlines()
    return lines[-1] if lines else f"status {process.returncode}"
