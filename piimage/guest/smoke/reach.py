"""How the head gets at the other nodes: programs with a time limit, ssh without a prompt, all at once."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .roster import Node

T = TypeVar("T")

_SIGNED = re.compile(r"^[a-z][\w./-]*: \S|Fatal error|Permission denied \(|verification failed")
#: MPICH's launcher: which part of it on which node, the place in its source, what is wrong.
_HYDRA = re.compile(r"^\[(?:proxy:[\d:]+|mpiexec)@([^\]]+)\] \w+ \([^)]*\): (.+)")
_LONGEST = 240
#: Nodes asked at the same time; each is an ssh process.
AT_ONCE = 64
#: Seconds between the request to end and the end by force.
_GRACE = 5.0
#: Enough for a node whose processor is emulated.
_CONNECT = 20


@dataclass(frozen=True)
class Said:
    """What a program said; `status` is None when it had to be ended because its time was over."""

    status: int | None
    out: str
    err: str

    @property
    def why(self) -> str:
        """The telling line of its errors, for a sentence about its failure."""
        words = _telling(self.err)
        if self.status is None:
            return "no end within its time" + (f"; it said: {words}" if words else "")
        return words or f"exit status {self.status}"


def _telling(errors: str) -> str:
    """A line that a program signed (`ssh: connect to...`), else a framed text's beginning, else the last line.

    Of Hydra's lines the first: the rest tell how it came to its own end.
    """
    lines = [re.sub(r"[^ -~]", "", line).strip() for line in errors.splitlines()]
    signed = [line for line in lines if _SIGNED.search(line)]
    hydra = [f"{found[1]}: {found[2]}" for found in map(_HYDRA.match, lines) if found]
    last = [line for line in lines if line.strip("-")]
    return next(iter([*signed, *hydra, *_framed(lines), *last[-1:]]), "")[:_LONGEST]


def _framed(lines: Sequence[str]) -> list[str]:
    """The first paragraph below a line of dashes, as Open MPI explains itself."""
    for place, line in enumerate(lines):
        if line and set(line) == {"-"}:
            words = itertools.takewhile(bool, lines[place + 1 :])
            return [" ".join(words)]
    return []


def run(argv: Sequence[str], limit: float, stdin: bytes = b"") -> Said:
    """Run a program for at most `limit` seconds; status 127 when it is not there."""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Said(127, "", f"{argv[0]}: {error.strerror}")
    status: int | None
    try:
        out, err = process.communicate(stdin, timeout=limit)
        status = process.returncode
    except subprocess.TimeoutExpired:
        out, err = _end(process)
        status = None
    return Said(status, text_of(out), text_of(err))


def text_of(said: bytes) -> str:
    """What a program said, without NUL bytes: Open MPI 5 puts some between the lines of remote processes."""
    return said.replace(b"\0", b"").decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a process and its children, politely first; what it had said until then."""
    said = (b"", b"")
    for kind in (signal.SIGTERM, signal.SIGKILL):
        kill_group(process.pid, kind)
        try:
            return process.communicate(timeout=_GRACE)
        except subprocess.TimeoutExpired as error:
            said = (error.output or b"", error.stderr or b"")
    return said


def kill_group(pid: int, kind: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to the process group of `pid`, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, kind)


def command(node: Node, head: str, argv: Sequence[str]) -> list[str]:
    """`argv` on `node`: here if it is the head, else over ssh.

    ssh goes to the address of the roster, whatever /etc/hosts says, and accepts no other machine's
    key there: an address given twice is told apart from a node that is down.
    """
    if node.name == head:
        return list(argv)
    options = [
        "BatchMode=yes",
        f"ConnectTimeout={_CONNECT}",
        f"HostName={node.address}",
        f"HostKeyAlias={node.name}",
        "LogLevel=ERROR",
    ]
    flags = [word for option in options for word in ("-o", option)]
    return ["ssh", "-T", *flags, node.name, " ".join(map(shlex.quote, argv))]


def everywhere(
    task: Callable[[Node], T], nodes: Iterable[Node], at_once: int = AT_ONCE
) -> dict[str, T]:
    """`task` for every node, at the same time: node name -> result, in the order of `nodes`."""
    wanted = list(nodes)
    with ThreadPoolExecutor(max(1, min(at_once, len(wanted)))) as pool:
        return dict(zip([node.name for node in wanted], pool.map(task, wanted)))
