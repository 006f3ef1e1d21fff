"""The two emulated machines as QEMU arguments. Pure: nothing here starts, opens or chooses by looking around.

`virt` has a network and is what the checks run on; it borrows kernel, initrd and command line from the card.
`raspi3b` emulates a Raspberry Pi 3 with an SD card and answers one question: does this card boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from piimage.boot.wiring import nics
from piimage.emulator import escaped
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from piimage.boot.memory import Share
    from piimage.boot.wiring import Wire
    from piimage.emulator import Accel

GIB = 1 << 30
#: Processors of `virt` where two do, and as many as a board has.
_FEW, _BOARD = 2, 4
#: What an emulated kernel leaves away: guards against the speculation of real processors, the address-space switch at
#: each system call that KASLR brings on arm64, and clearing pages that are written next. A boot takes a third less.
_UNGUARDED = ("mitigations=off", "kpti=off", "nokaslr", "init_on_alloc=0")
#: What systems call eth0 by a rule for the boards' own drivers (Ubuntu's 10-raspi-eth0.link) has another driver here.
_OLD_NAMES = "net.ifnames=0"
#: Files of the device tree of a Pi 3 Model B, mainline's and Raspberry Pi's own name.
DEVICE_TREES = (r"bcm2837-rpi-3-b\.dtb", r"bcm2710-rpi-3-b\.dtb", r"bcm27\d\d-rpi-3-b.*\.dtb")

#: A line for the monitor of `raspi3b`: reading the mini UART's data register makes QEMU look at that port's
#: interrupt again. QEMU 7.2 loses it now and then, and then systemd waits for ever to write to the console
#: (seen: all processors idle until this register was read).
NUDGE = "xp /1xw 0x3f215040"


class Machine(StrEnum):
    """QEMU's name of the machine."""

    VIRT = "virt"
    RASPI3B = "raspi3b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the machine is put together from; `disk` is a qcow2 overlay."""

    kernel: Path
    initrd: Path | None
    dtb: Path | None
    cmdline: str
    disk: Path
    console: Path


def additions(machine: Machine, cmdline: str, accel: Accel) -> tuple[str, ...]:
    """Kernel tokens that the rehearsal adds to the card's own; every one of them goes into the report."""
    console = "console=ttyAMA0" if machine is Machine.VIRT else "console=ttyS1,115200"
    # The last console is /dev/console, where the initramfs and systemd speak.
    consoles = [token for token in cmdline.split() if token.startswith("console=")]
    added = [] if consoles[-1:] == [console] else [console]
    if machine is Machine.VIRT and _OLD_NAMES not in cmdline.split():
        added.append(_OLD_NAMES)
    if accel.emulated:
        # systemd waits 90 s for a device that an emulated board needs longer to show.
        added += ["systemd.default_device_timeout_sec=600", *_UNGUARDED]
    return tuple(added)


def overlay_size(machine: Machine, artifact: int, wanted: int | None) -> int:
    """Bytes of the card that is played: larger than the artifact, and a power of two on an SD bus.

    `wanted` None means the artifact and 1 GiB. Raises `PiimageError` when it is smaller than the artifact.
    """
    size = artifact + GIB if wanted is None else wanted
    if size < artifact:
        raise PiimageError(
            f"`--disk-size` is smaller than the image, which has {artifact} bytes",
            hint="leave it away for 1 GiB more than the image",
        )
    if machine is Machine.RASPI3B:
        return 1 << (size - 1).bit_length()
    return -(-size // 512) * 512


def processors(slots: int) -> int:
    """How many `virt` gets in a cluster with so many MPI ranks per node: two, or a board's four.

    Where ranks are more than processors, `mpirun` of Open MPI 5 ends with "would require binding processes to more
    cpus than are available" (Debian 13's 5.0.7). Fewer are quicker to emulate.
    """
    return _FEW if slots <= _FEW else _BOARD


def argv(
    machine: Machine,
    parts: Parts,
    accel: Accel,
    memory: Share,
    net: Wire | None,
    *,
    slots: int = 1,
) -> list[str]:
    """The whole command; `memory` and `slots`, MPI ranks, count on `virt` alone, `net` None means no NIC."""
    words = [
        "qemu-system-aarch64",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]
    words += ["-qmp", "stdio", "-name", "piimage"]
    if machine is Machine.VIRT:
        words += _virt(parts, accel, memory, net, processors(slots))
    else:
        words += _raspi3b(parts)
    words += ["-kernel", str(parts.kernel), "-append", parts.cmdline]
    if parts.initrd is not None:
        words += ["-initrd", str(parts.initrd)]
    return words


def _virt(parts: Parts, accel: Accel, memory: Share, net: Wire | None, cpus: int) -> Iterable[str]:
    interrupts = ",gic-version=host" if not accel.emulated else ""
    words = ["-M", f"virt{interrupts}", "-cpu", accel.cpu]
    words += ["-smp", str(cpus), "-m", str(memory.node)]
    tcg = f"tcg,thread=multi,tb-size={memory.translated}"
    words += ["-accel", tcg if accel.emulated else accel.name]
    words += ["-drive", f"if=none,id=card,format=qcow2,cache=unsafe,file={escaped(parts.disk)}"]
    words += ["-device", "virtio-blk-pci,drive=card", "-device", "virtio-rng-pci"]
    if net is not None:
        words += nics(net)
    return [*words, *_console(parts)]


def _raspi3b(parts: Parts) -> Iterable[str]:
    """The machine has four cores, 1 GiB and two serial ports; Debian's kernel talks on the second."""
    words = ["-M", "raspi3b", "-smp", "4", "-m", "1024", "-accel", "tcg,thread=multi"]
    words += ["-drive", f"if=sd,format=qcow2,cache=unsafe,file={escaped(parts.disk)}"]
    if parts.dtb is not None:
        words += ["-dtb", str(parts.dtb)]
    return [*words, "-serial", "null", *_console(parts)]


def _console(parts: Parts) -> Iterable[str]:
    return [
        "-chardev",
        f"file,id=console,path={escaped(parts.console)}",
        "-serial",
        "chardev:console",
    ]
