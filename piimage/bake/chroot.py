"""The chroot engine: the image's root file system mounted in place, its programs run by qemu-user.

Everything happens in namespaces of our own, so a killed bake leaves no mount. As root an image of ours is mounted
by the kernel; any other, and any image for an ordinary user, by fuse2fs, since the host's kernel is no parser for
images from outside. Such an image's root is nobody here: an ordinary user's subordinate id, or for root one that
no account has.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.bake.engine import ENVIRONMENT, follow
from piimage.bake.firmware import bring_back, take_out
from piimage.bases import namespace
from piimage.disk import fat, rootfs
from piimage.errors import ToolFailedError
from piimage.run import find, process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from piimage.bake.engine import Job
    from piimage.progress import Progress

#: Where the ids of guests from outside begin on this machine: above accounts, subordinate ids as distributions deal
#: them out, and systemd's ranges (systemd.io/UIDS-GIDS), below 2**31.
_FIRST_ID = 0x7000_0000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Native tools for bakes (see `native_copy`): their directory, multiarch triplet and loader."""

    directory: Path
    triplet: str
    loader: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChrootEngine:
    """Runs jobs under `prefix`, a command that makes namespaces (see `piimage.bases.namespace`)."""

    prefix: Sequence[str]
    tools: Tools | None = None
    name: str = field(default="chroot", init=False)

    def run(self, job: Job, progress: Progress) -> None:
        """Run the job's script inside its image; see `Engine.run`."""
        mount = "kernel" if job.trusted and os.geteuid() == 0 else "fuse"
        if mount == "fuse":
            find("fuse2fs")
        packages = job.scratch / "packages"
        packages.mkdir()
        for path in job.packages:
            (packages / path.name).hardlink_to(path)
        script = job.scratch / "script"
        script.write_bytes(job.script)
        firmware = job.scratch / "firmware"
        firmware.mkdir()
        before: Mapping[str, str] = {}
        if job.firmware is not None:
            before = take_out(job.image, job.firmware.start, firmware)
        with (
            progress.step("installing in a chroot") as task,
            as_file(files("piimage.bake")) as ours,
            job.log.open("ab") as log,
        ):
            (job.scratch / "native.sh").write_bytes((ours / "native.sh").read_bytes())
            env = {
                **self._environment(job, mount, packages, script),
                "INSIDE": str(ours / "inside.py"),
                "FIRMWARE": str(firmware) if job.firmware else "",
            }
            argv = [*self.prefix, "sh", str(ours / "chroot.sh")]
            if mount == "fuse" and os.geteuid() == 0:
                argv = [*self.prefix, "sh", str(ours / "shifted.sh")]
                env |= {"CHROOT": str(ours / "chroot.sh"), "FIRST": str(_FIRST_ID)}
            with process(argv, env=env) as child:
                assert child.stdout is not None  # noqa: S101 -- process() pipes it
                follow(child.stdout, log, task)
                status = child.wait()
        if status != 0:
            raise ToolFailedError(f"the script in the chroot ended with exit status {status}")
        with progress.step("checking the file systems"):
            if job.firmware is not None and bring_back(
                job.image, job.firmware.start, firmware, before
            ):
                fat.check(job.image, job.firmware.start)
            rootfs.check(job.image, job.root)

    def _environment(self, job: Job, mount: str, packages: Path, script: Path) -> Mapping[str, str]:
        """What chroot.sh reads."""
        work = job.scratch / "work"
        work.mkdir()
        tools = self.tools
        (job.scratch / "native.sh").rename(work / "native.sh")
        return {
            "IMAGE": str(job.image),
            "OFFSET": str(job.root.start),
            "SIZE": str(job.root.size),
            "MOUNT": mount,
            "WORK": str(work),
            "PACKAGES": str(packages),
            "SCRIPT": str(script),
            "NATIVE": str(tools.directory) if tools else "",
            "TRIPLET": tools.triplet if tools else "",
            "LOADER": tools.loader if tools else "",
            "DPKG": f"dpkg/{job.architecture}",
            "REPLACED": " ".join(path.name.partition("_")[0] for path in job.packages),
            "ENVIRONMENT": " ".join(shlex.quote(f"{k}={v}") for k, v in ENVIRONMENT.items()),
            "PYTHON": str(_python()),
            "PLACE": job.firmware_mount,
            "QEMU_CPU": namespace.CPUS[job.architecture],
        }


def _python() -> Path:
    """A python3 that everybody may run: the system's, since ours may lie where only its owner comes."""
    system = Path("/usr/bin/python3")
    return system if system.exists() else Path(sys.executable).resolve()
