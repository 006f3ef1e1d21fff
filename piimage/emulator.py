"""QEMU itself: which accelerator it has, how it is started so that it cannot outlive us, and what it says.

What a machine is put together from is the business of `piimage.boot` and `piimage.bake`.
"""

from __future__ import annotations

import os
import platform
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from piimage.run import PIPE, find, process, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from piimage.run import Process

PROGRAM = "qemu-system-aarch64"
#: The emulated CPU: QEMU's default `max` emulates pointer authentication at several times the cost.
CPU = "cortex-a72"
KVM = "/dev/kvm"

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()#][A-Za-z0-9]|[@-Z\\^_=>])"
)


@dataclass(frozen=True, slots=True)
class Accel:
    """How guest code is run: `kvm` or `tcg`, the CPU that `virt` gets, and in words why it is that one."""

    name: str
    cpu: str
    reason: str = field(default="", compare=False)

    @property
    def emulated(self) -> bool:
        """Whether it is many times slower than a board."""
        return self.name == "tcg"


def accelerator(host: str, *, usable: bool) -> Accel:
    """KVM when the host (`platform.machine()`) is a 64-bit ARM, may use it, and QEMU starts with it; else TCG."""
    if host not in ("aarch64", "arm64"):
        return Accel("tcg", CPU, f"this machine is {host}: arm64 is emulated")
    if not usable:
        return Accel("tcg", CPU, f"{KVM} is not there, or not open to you (group `kvm`)")
    if not _kvm_starts():
        return Accel("tcg", CPU, f"{KVM} is there, but QEMU does not start with it")
    return Accel("kvm", "host", "QEMU starts with it")


def _kvm_starts() -> bool:
    """/dev/kvm may be there and QEMU still crash: only a start tells."""
    words = [PROGRAM, "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]
    words += ["-M", "virt,gic-version=host", "-cpu", "host", "-accel", "kvm"]
    commands = b'{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'
    return run(words, stdin=commands, check=False, timeout=30).returncode == 0


def this_accelerator() -> Accel:
    """The accelerator of this machine."""
    return accelerator(platform.machine(), usable=os.access(KVM, os.R_OK | os.W_OK))


def tethered(argv: Sequence[str]) -> list[str]:
    """The command so that its process dies with us, however we end.

    The kernel means the thread that starts it (prctl(2), PR_SET_PDEATHSIG): start it from the main thread.
    """
    return ["setpriv", "--pdeathsig", "KILL", "--", find(argv[0]), *argv[1:]]


@contextmanager
def launched(argv: Sequence[str], messages: Path) -> Iterator[Process]:
    """QEMU until the block ends, or we do, however we end; what it says goes to the file `messages`.

    `argv` has `-qmp stdio`. A session of its own keeps a Ctrl-C from reaching QEMU before us. Raises
    `MissingToolError` when there is no QEMU.
    """
    with (
        messages.open("wb") as said,
        process(tethered(argv), stdin=PIPE, stdout=said, stderr=said, new_session=True) as child,
    ):
        if child.stdin is not None:
            with suppress(BrokenPipeError):  # it ended at once: the caller sees why
                os.write(child.stdin.fileno(), b'{"execute": "qmp_capabilities"}\n')
        yield child


def last_words(messages: Path) -> str:
    """The last line that QEMU said for people, or an empty string: QMP's JSON shares the file."""
    text = clean(messages.read_text(encoding="utf-8", errors="replace"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("{")]
    return lines[-1] if lines else ""


def escaped(path: Path) -> str:
    """A comma ends a value in QEMU's options unless it is doubled."""
    return str(path).replace(",", ",,")


def clean(text: str) -> str:
    """`text` without escape sequences, carriage returns and other control characters."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
