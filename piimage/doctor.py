"""What this machine has of what piimage needs, by what it is needed for."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.bake import kernel
from piimage.bake.choice import ENGINES, choose
from piimage.bases import namespace
from piimage.boot import memory
from piimage.disk import guestfs
from piimage.emulator import PROGRAM, this_accelerator
from piimage.errors import MissingToolError
from piimage.host import this_host
from piimage.run import PACKAGES, available, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from piimage.bake.choice import Choice
    from piimage.bases.cache import Cache
    from piimage.emulator import Accel
    from piimage.host import Host

#: Programs that each purpose cannot do without; what only some ways of doing it need is asked for by name.
TOOLS = {
    "make a base": ("mmdebstrap", "mke2fs", "mkfs.vfat", "mcopy", "sfdisk", "zstd", "setpriv", "unshare"),
    "pull a base": ("gpg", "gpgv", "zstd"),
    "build": ("e2fsck", "fsck.fat", "mcopy", "qemu-img", "xz"),
    "bake": ("apt-get", "apt-cache", "apt-config", "dpkg-deb", "resize2fs"),
    "boot": (PROGRAM, "qemu-img", "setpriv", "ssh"),
    "flash": ("blkid", "e2fsck", "resize2fs", "sfdisk", "umount", "zstd"),
}  # fmt: skip
#: By whether we are root: only root may write to disks, and sees who else uses them.
_FLASH = {True: "as root, as it must be", False: "with `sudo`, onto files without"}
#: Asked for by name where a way of doing it needs them.
EXTRA = ("depmod", "fuse2fs", "newuidmap", "qemu-aarch64-static", "xfs_repair")
#: Less than this is soon full: a base, its variants and images of some nodes.
ENOUGH = 6 << 30
_GUESTFS = "python3-guestfs"
_BOOT = Path("/boot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Something missing: a `program`, or a `package` by Debian's name, and `cure`: what else to do."""

    what: str
    program: str | None = None
    package: str | None = None
    cure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """Whether piimage can do a thing here: `how` says in which way, `lacks` why not.

    What is not `needed` may stay undone where it lacks a privilege that no package brings.
    """

    name: str
    how: str = ""
    lacks: tuple[Lack, ...] = ()
    needed: bool = True

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.lacks


@dataclass(frozen=True, slots=True)
class Engine:
    """A way to install packages into an image, whether it works here, and why or why not."""

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was looked at.

    `free` bytes for the cache, `kernel` the version of our own once it was fetched, `programs` where each one is,
    `engines` why each can bake or cannot.
    """

    host: Host
    programs: Mapping[str, str | None]
    engines: tuple[Engine, ...]
    purposes: tuple[Purpose, ...]
    engine: Choice | None
    accelerator: Accel
    cache: Path
    free: int
    kernel: str | None

    @property
    def ok(self) -> bool:
        """Whether all that is needed can be done here, and no package is missing."""
        return not self.packages and all(p.ok or not p.needed for p in self.purposes)

    @property
    def packages(self) -> tuple[str, ...]:
        """Debian packages that bring what is missing."""
        lacks = [lack for purpose in self.purposes for lack in purpose.lacks]
        named = {lack.package for lack in lacks if lack.package}
        return tuple(sorted({*named, *(PACKAGES.get(tool, tool) for tool in self.missing)}))

    @property
    def missing(self) -> tuple[str, ...]:
        """Programs that are not here and are needed."""
        lacks = (lack for purpose in self.purposes for lack in purpose.lacks)
        return tuple(sorted({lack.program for lack in lacks if lack.program}))

    @property
    def install(self) -> str | None:
        """The command of this distribution that brings what is missing; None if nothing is, or none is known."""
        lacks = (lack for purpose in self.purposes for lack in purpose.lacks)
        others = {lack.package for lack in lacks if lack.package}
        return self.host.install(self.missing, others) if self.missing or others else None


def examine(cache: Cache) -> Diagnosis:
    """Look at this machine. Starts small programs to see whether they work, and changes nothing."""
    try:
        engine, trouble = choose(), None
    except MissingToolError as error:
        engine, trouble = None, error
    accelerator = this_accelerator()
    fetched = kernel.present(cache)
    purposes = (
        _purpose("make a base", _foreign_trees, needed=False),  # others' images can be imported
        _purpose(
            "pull a base",
            lambda: ("over the network, or from a file or a mirror", ()),
            needed=False,
        ),
        _purpose("build", _appliance),
        _purpose("bake", lambda: _engine(engine, trouble)),
        _purpose("boot", lambda: _rehearsal(accelerator)),
        _purpose("flash", lambda: (_FLASH[os.geteuid() == 0], ())),
    )
    tools = sorted({tool for tools in (*TOOLS.values(), EXTRA) for tool in tools})
    return Diagnosis(
        host=this_host(),
        programs={tool: find(tool) if available(tool) else None for tool in tools},
        engines=tuple(_tried(name, engine) for name in ENGINES if name != "auto"),
        purposes=purposes,
        engine=engine,
        accelerator=accelerator,
        cache=cache.root,
        free=_free(cache.root),
        kernel=fetched.version if fetched else None,
    )


def _tried(name: str, chosen: Choice | None) -> Engine:
    """Whether an engine could be asked for by name."""
    if chosen is not None and chosen.name == name:
        return Engine(name, usable=True, reason=chosen.reason)
    try:
        choose(name)
    except MissingToolError as error:
        return Engine(name, usable=False, reason=error.message)
    return Engine(name, usable=True, reason="works too")


def _rehearsal(accelerator: Accel) -> tuple[str, Iterable[Lack]]:
    """What runs the nodes, and how many of them at once."""
    most = memory.most_nodes(memory.available(), emulated=accelerator.emulated)
    nodes = f"{most} node{'s' * (most != 1)}"
    if not most:
        return "", (Lack(what="memory for a node", cure="end other programs"),)
    return f"{accelerator.name}: {accelerator.reason}; memory for {nodes} at once", ()


def _purpose(
    name: str, look: Callable[[], tuple[str, Iterable[Lack]]], *, needed: bool = True
) -> Purpose:
    """What is missing of a purpose's programs, and of the rest that `look` knows."""
    how, others = look()
    lacks = [_program(tool) for tool in TOOLS[name] if not available(tool)]
    lacks = list(dict.fromkeys([*lacks, *others]))
    return Purpose(name=name, how=how, lacks=tuple(lacks), needed=needed)


def _program(tool: str) -> Lack:
    return Lack(what=f"`{tool}`", program=tool)


def _without(error: MissingToolError) -> Iterable[Lack]:
    """What an error says is missing."""
    if error.tools:
        return map(_program, error.tools)
    return (Lack(what=error.message, cure=error.hint),)


def _foreign_trees() -> tuple[str, Iterable[Lack]]:
    try:
        namespace.prefix()
    except MissingToolError as error:
        return "", _without(error)
    return "arm64 programs run here", ()


def _appliance() -> tuple[str, Iterable[Lack]]:
    """libguestfs: the module, and a kernel for its appliance (supermin takes the host's)."""
    if not guestfs.installed():
        cure = "a virtual environment sees it when made with `--system-site-packages`"
        lack = Lack(what="the Python module `guestfs`", package=_GUESTFS, cure=cure)
        return "", (lack,)
    own = [name for name in ("SUPERMIN_KERNEL", "LIBGUESTFS_PATH") if os.environ.get(name)]
    if own:
        return f"libguestfs, its kernel as `{own[0]}` says", ()
    kernels = sorted(_BOOT.glob("vmlinuz-*"))
    readable = [path for path in kernels if os.access(path, os.R_OK)]
    if readable:
        return f"libguestfs with {readable[-1]}", ()
    if kernels:
        cure = f"`sudo chmod 0644 {kernels[-1]}`"
        return "", (Lack(what=f"the right to read `{kernels[-1]}`", cure=cure),)
    package = f"linux-image-cloud-{'arm64' if os.uname().machine == 'aarch64' else 'amd64'}"
    return "", (Lack(what="a kernel in /boot for the libguestfs appliance", package=package),)


def _engine(engine: Choice | None, trouble: MissingToolError | None) -> tuple[str, Iterable[Lack]]:
    if engine is not None:
        return f"{engine.name}: {engine.reason}", ()
    return "", _without(trouble) if trouble else ()


def _free(place: Path) -> int:
    """Bytes that an ordinary user may still write where `place` is or will be."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
