"""What a bake asks of an engine: run one script as root inside the guest's own tree, offline, in place.

The script is the same for every engine and finds there, whatever the engine is:

* the guest's root file system, writable, as `/`; with `Job.firmware` the files of that partition at `firmware_mount`;
* the package files, read-only, at `PACKAGES/NAME`;
* its own `/proc`, `/dev` (null, zero, full, random, urandom, tty, ptmx, pts, shm), and empty tmpfs at `/run` and
  `/tmp` (so no `/run/systemd/system`, which is how maintainer scripts know that no systemd runs);
* no network but a loopback, `/` as working directory, an empty standard input, `ENVIRONMENT` and a PATH.

What it says on standard output and error goes line by line into the job's log and to the user as notes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from piimage.facts import Partition
    from piimage.progress import Progress, Task

#: Where package files are inside the guest.
PACKAGES = "/run/piimage/packages"
#: What every engine sets for the script, besides a PATH of its own.
ENVIRONMENT = {
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "TERM": "dumb",
}

_STEP = re.compile(
    rb"(?:piimage: (?P<step>.*)|(?P<dpkg>(?:Unpacking|Setting up|Processing triggers for) \S+).*)"
)
_NOTE_LENGTH = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a script in one image.

    `image` is a scratch copy that is modified in place; `root` and `firmware` are partitions of it, `firmware` None
    when the script needs none of its files. `architecture` is Debian's name of the guest's. `packages` are files
    whose names are unique. `log` is written by the engine. `scratch` is an empty directory for the engine, on the
    image's disk, gone afterwards. `trusted` says that the image was made by us: the host's kernel may mount it.
    """

    image: Path
    root: Partition
    firmware: Partition | None = None
    firmware_mount: str = "/boot/firmware"
    architecture: str
    script: bytes
    packages: tuple[Path, ...] = ()
    log: Path
    scratch: Path
    trusted: bool = False


class Engine(Protocol):
    """A way to run a job on this machine."""

    @property
    def name(self) -> str:
        """A word for logs and `--json`: `chroot`, `vm`."""

    def run(self, job: Job, progress: Progress) -> None:
        """Run the script to its end, with both file systems synced and clean afterwards.

        Raises `MissingToolError` before anything is touched, `ToolFailedError` when the script fails (its words
        are in `job.log`), `WriteFailedError` when the host's disk is full. The image is then of no use.
        """


def follow(lines: Iterable[bytes], log: IO[bytes], task: Task) -> None:
    """Copy what the script says into the log, and tell of each step and package on `task`."""
    for line in lines:
        log.write(line)
        log.flush()
        match = _STEP.match(line.strip())
        if match:
            words = match["step"] or match["dpkg"]
            task.note(words.decode(errors="replace")[:_NOTE_LENGTH])
