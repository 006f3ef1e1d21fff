"""The engine `vm`: a machine of our own in QEMU, with our kernel, our init, the image, and nothing else.

Needs no root, no binfmt and no KVM. The image is parsed by the guest's kernel and never by the host's, there is no
network device, and what comes back is text in files. Serves arm64 and armhf: the CPU runs both.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from dataclasses import dataclass, field
from importlib.resources import files
from typing import IO, TYPE_CHECKING

from piimage.bake import kernel
from piimage.bake.engine import ENVIRONMENT, follow
from piimage.bake.initramfs import initramfs
from piimage.disk import fat, rootfs
from piimage.emulator import PROGRAM, clean, escaped, last_words, launched, this_accelerator
from piimage.errors import ToolFailedError, UnsupportedError, WriteFailedError
from piimage.run import require, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.bake.engine import Job
    from piimage.bake.kernel import Kernel
    from piimage.bases.cache import Cache
    from piimage.emulator import Accel
    from piimage.facts import Partition
    from piimage.progress import Progress
    from piimage.run import Process

ARCHITECTURES = ("arm64", "armhf")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MODULES = ("virtio_blk", "virtio_pci", "crc32c_generic", "ext4")  # the packages lie in an ext4
#: How a root file system is mounted, by its type. No journal is kept (`noload`, for a clean file system): it is for
#: crashes, and the host takes the image only after a clean end. Nor are inode tables zeroed that nobody uses.
_OPTIONS = {"ext4": "noload,noatime,nobarrier,noinit_itable", "xfs": "noatime"}
_FAT_MODULES = ("vfat", "nls_cp437", "nls_ascii", "nls_utf8")
_MEMORY = 1024  # MiB
_CPUS = 2
#: The guest is ours alone and lives for minutes: what guards a machine against its users only costs.
_CMDLINE = (
    "console=ttyAMA0 quiet panic=-1 oops=panic mitigations=off kpti=off nokaslr init_on_alloc=0 lsm=capability audit=0"
)  # fmt: skip
_PAUSE = 0.2
_SHOWN = 12
#: Files that the machine writes: what the script says, how it ended, the console.
_OUTPUTS = ("said", "ended", "console")
_MOST_OUTPUT = 256 << 20
_MIB = 1 << 20
_TROUBLE = re.compile(r"(Kernel panic - not syncing.*|Out of memory: Killed process.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmEngine:
    """Runs jobs in QEMU. `stall` and `limit` are seconds: of silence, and in all."""

    cache: Cache
    accel: Accel = field(default_factory=this_accelerator)
    stall: float = 1800
    limit: float = 4 * 3600
    name: str = field(default="vm", init=False)

    def run(self, job: Job, progress: Progress) -> None:
        """Run the job's script inside its image; see `Engine.run`."""
        kind = job.root.filesystem.type if job.root.filesystem else "unknown"
        if kind not in _OPTIONS:
            known = " or ".join(_OPTIONS)
            raise UnsupportedError(
                f"packages go into a root file system of {known}, this one is {kind}"
            )
        if job.architecture not in ARCHITECTURES:
            raise UnsupportedError(
                f"the virtual machine runs {' and '.join(ARCHITECTURES)}, not {job.architecture}"
            )
        require(PROGRAM, "setpriv", "mke2fs")
        own = kernel.ensure(self.cache, progress)
        place = job.scratch
        with progress.step("packing the packages for the virtual machine"):
            _pack(job, place / "packages.img")
        _write_initramfs(own, job, place / "initramfs")
        with progress.step("installing in a virtual machine") as task, job.log.open("ab") as log:
            for name in _OUTPUTS:
                (place / name).write_bytes(b"")
            with (
                launched(self._argv(own, job), place / "messages") as child,
                (place / "said").open("rb") as said,
            ):
                follow(self._lines(child, said, place), log, task)
            _judge(place, job)
        with progress.step("checking the file system"):
            rootfs.check(job.image, job.root)
            if job.firmware:
                fat.check(job.image, job.firmware.start)

    def _argv(self, own: Kernel, job: Job) -> list[str]:
        """The whole command of QEMU."""
        place = job.scratch
        interrupts = "" if self.accel.emulated else ",gic-version=host"
        cpus = min(_CPUS, os.cpu_count() or 1)
        words = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        words += ["-sandbox", "on,spawn=deny,elevateprivileges=deny,obsolete=deny"]
        words += ["-qmp", "stdio", "-name", "piimage-bake", "-M", f"virt{interrupts}"]
        words += ["-cpu", self.accel.cpu, "-smp", str(cpus), "-m", str(_MEMORY)]
        words += ["-accel", "tcg,thread=multi" if self.accel.emulated else self.accel.name]
        words += ["-kernel", str(own.image), "-initrd", str(place / "initramfs")]
        words += ["-append", _CMDLINE]
        words += _drive("image", job.image, "cache=unsafe")
        words += _drive("packages", place / "packages.img", "readonly=on")
        if job.root.volume:
            words += _part("root", job.image, job.root)
        words += ["-chardev", f"file,id=console,path={escaped(place / 'console')}"]
        words += ["-serial", "chardev:console", "-device", "virtio-serial-pci"]
        for number, name in enumerate(_OUTPUTS[:2], 1):
            words += ["-chardev", f"file,id={name},path={escaped(place / name)}"]
            words += ["-device", f"virtserialport,chardev={name},nr={number},name={name}"]
        return words

    def _lines(self, child: Process, said: IO[bytes], place: Path) -> Iterator[bytes]:
        """Lines as the script prints them, until QEMU ends; raises `ToolFailedError` when that takes too long."""
        began = heard = time.monotonic()
        before, rest = 0, b""
        while True:
            running = child.poll() is None
            fresh = said.read(_MIB)
            lines = (rest + fresh).splitlines(keepends=True)
            rest = lines.pop() if running and lines and not lines[-1].endswith(b"\n") else b""
            yield from lines
            written, now = sum((place / name).stat().st_size for name in _OUTPUTS), time.monotonic()
            if written > before:
                heard, before = now, written
            if written > _MOST_OUTPUT:
                raise _failure(f"printed more than {_MOST_OUTPUT // _MIB} MiB", place)
            if not running and not fresh:
                return
            if now - heard > self.stall:
                raise _failure(f"said nothing for {self.stall:.0f} s", place)
            if now - began > self.limit:
                raise _failure(f"did not end within {self.limit:.0f} s", place)
            if not fresh:
                time.sleep(_PAUSE)


def _pack(job: Job, image: Path) -> None:
    """The package files in a file system of their own, made without privilege."""
    tree = job.scratch / "drive"
    packages = tree / "packages"
    packages.mkdir(parents=True)
    for path in job.packages:
        (packages / path.name).hardlink_to(path)
    content = sum(path.stat().st_size for path in job.packages)
    blocks = (content + content // 20) // 4096 + len(job.packages) + 1024
    run(
        ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal,^resize_inode",
         "-N", str(len(job.packages) + 64), "-d", tree, image, str(blocks)]
    )  # fmt: skip


def _write_initramfs(own: Kernel, job: Job, target: Path) -> None:
    """`init`, the script and what both must know."""
    init = (files("piimage.bake") / "vm_init.sh").read_bytes()
    environment = {**ENVIRONMENT, "PATH": _PATH}
    kind = job.root.filesystem.type if job.root.filesystem else ""
    config = {
        "ROOT": "vdc" if job.root.volume else f"vda{job.root.number}",
        "TYPE": kind,
        "OPTIONS": _OPTIONS[kind],
        "FIRMWARE": f"vda{job.firmware.number}" if job.firmware else "",
        "FIRMWARE_MOUNT": job.firmware_mount,
        "ENVIRONMENT": shlex.join(f"{key}={value}" for key, value in environment.items()),
        # What `uname -m` says, as on a board whose kernel is a 32-bit one.
        "PERSONALITY": "linux32" if job.architecture == "armhf" else "",
    }
    text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in config.items())
    modules = (*_MODULES, *({kind} - {"ext4"}), *(_FAT_MODULES if job.firmware else ()))
    content = {"init": init, "config": text.encode(), "script": job.script}
    target.write_bytes(initramfs(own, modules, content))


def _drive(name: str, path: Path, option: str) -> list[str]:
    """A raw drive; an error of the host's disk is the guest's to see, where QEMU would stop and wait."""
    return [
        "-drive", f"if=none,id={name},format=raw,{option},file={escaped(path)}",
        "-device", f"virtio-blk-pci,drive={name},werror=report,rerror=report",
    ]  # fmt: skip


def _part(name: str, path: Path, part: Partition) -> list[str]:
    """A piece of a raw image as a drive of its own, which spares the guest to know of LVM.

    Both drives are the same file; QEMU's locks would keep the second from it.
    """
    node = (
        f"driver=raw,node-name={name},offset={part.start},size={part.size},cache.no-flush=on,"
        f"file.driver=file,file.locking=off,file.filename={escaped(path)}"
    )
    device = f"virtio-blk-pci,drive={name},werror=report,rerror=report"
    return ["-blockdev", node, "-device", device]


def _judge(place: Path, job: Job) -> None:
    """Return when all went well; raise what has gone wrong."""
    messages = (place / "messages").read_text(encoding="utf-8", errors="replace")
    if '"nospace": true' in messages:
        raise WriteFailedError(f"no room left on the disk of `{job.image}`", hint="free some space")
    if "BLOCK_IO_ERROR" in messages:
        raise _failure("had errors of its disk", place)
    ended = clean((place / "ended").read_text(encoding="utf-8", errors="replace")).strip()
    word, _, rest = ended.partition(" ")
    if word == "status" and rest == "0":
        return
    if word == "status":
        raise ToolFailedError(
            f"the script in the virtual machine ended with exit status {rest[:20]}"
        )
    if word == "failed":
        raise _failure(rest[:200], place)
    trouble = _TROUBLE.search(_console(place))
    if trouble:
        raise _failure(f"stopped: {trouble[1][:160]}", place)
    said = last_words(place / "messages")
    raise _failure(f"ended before the script did{': ' + said if said else ''}", place)


def _failure(words: str, place: Path) -> ToolFailedError:
    """The error that says `words` of the machine and shows how its console ended."""
    lines = [line[:160] for line in _console(place).splitlines() if line.strip()][-_SHOWN:]
    return ToolFailedError(f"the virtual machine {words}" + "".join(f"\n    {x}" for x in lines))


def _console(place: Path) -> str:
    """The end of what the console showed."""
    data = (place / "console").read_bytes()
    return clean(data[-65536:].decode(errors="replace"))
