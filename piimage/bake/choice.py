"""Which engine bakes on this machine, and why.

`chroot` is the faster one: as root, or in a user namespace, with qemu-user for a foreign architecture. `vm` needs
nothing but QEMU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from piimage.bases import namespace
from piimage.emulator import PROGRAM
from piimage.errors import MissingToolError, PiimageError, UnsupportedError
from piimage.run import require, run

ENGINES = ("auto", "chroot", "vm")
_FUSE = Path("/dev/fuse")
#: What fuse2fs mounts.
_MOUNTED = ("ext2", "ext3", "ext4")
#: What turns user namespaces off: Linux (user_namespaces(7)), Debian's own switch, Ubuntu's AppArmor.
_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
     "kernel.apparmor_restrict_unprivileged_userns=1"),
)  # fmt: skip
_VM_TOOLS = (PROGRAM, "setpriv", "mke2fs", "apt-get", "dpkg-deb", "depmod")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An engine and in words why it is that one; `prefix` is the namespace command of `chroot`."""

    name: str
    reason: str
    prefix: tuple[str, ...] = ()


def choose(
    wanted: str = "auto", *, trusted: bool = True, architecture: str = "arm64", kind: str = "ext4"
) -> Choice:
    """The engine to use: `wanted` is one of `ENGINES`; `trusted` and `architecture` as in `engine.Job`.

    `kind` is the root file system's type.

    Raises `PiimageError` for another word, `UnsupportedError` for another architecture, `MissingToolError` when the
    engine that was asked for, or all of them, lack something.
    """
    if wanted not in ENGINES:
        raise PiimageError(f"`{wanted}` is not an engine; one of {', '.join(ENGINES)}")
    if architecture not in namespace.CPUS:
        raise UnsupportedError(
            f"packages go into images of {' and '.join(namespace.CPUS)}, this one is of {architecture}"
        )
    if wanted == "vm":
        require(*_VM_TOOLS)
        return Choice(name="vm", reason="as asked for")
    try:
        prefix = tuple(namespace.prefix(architecture))
        _check_mount(trusted=trusted, kind=kind)
    except MissingToolError as error:
        if wanted == "chroot":
            raise
        return _vm_instead(error)
    return Choice(name="chroot", reason=_how(architecture), prefix=prefix)


def _check_mount(*, trusted: bool, kind: str) -> None:
    """Raise `MissingToolError` when an image cannot be mounted: root's kernel mounts what we made, FUSE the rest."""
    if kind not in _MOUNTED:
        raise MissingToolError(
            f"there is nothing that mounts the image's {kind} without this machine's kernel",
            hint="engine `vm` has a kernel of its own",
        )
    if trusted and os.geteuid() == 0:
        return
    require("fuse2fs")
    if not os.access(_FUSE, os.R_OK | os.W_OK):
        raise MissingToolError(
            f"there is no `{_FUSE}` that you may use", hint="`modprobe fuse` as root"
        )
    if os.geteuid() == 0 and run(["unshare", "--user", "true"], check=False).returncode != 0:
        raise MissingToolError(
            "packages of an image from outside are installed in a user namespace, which is not allowed here",
            hint="`sysctl user.max_user_namespaces=1000`, or in a container its own setting",
        )


def _vm_instead(error: MissingToolError) -> Choice:
    """`vm`, because of `error`; raises an error with both cures when that lacks something too."""
    try:
        require(*_VM_TOOLS)
    except MissingToolError as other:
        raise MissingToolError(
            f"packages can be baked neither in a chroot, since {error.message}, nor in a virtual machine, "
            f"since {other.message}",
            hint="; or ".join(filter(None, [other.hint, error.hint])),
            tools=(*error.tools, *other.tools),
        ) from error
    return Choice(name="vm", reason=f"no chroot, since {error.message}{_switched_off()}")


def _switched_off() -> str:
    """The sysctl that keeps an ordinary user from having user namespaces, if one does."""
    if os.geteuid() == 0:
        return ""
    for path, value, words in _SWITCHES:
        try:
            found = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if found == value:
            return f" (sysctl {words})"
    return ""


def _how(architecture: str) -> str:
    """What makes a chroot possible here."""
    who = "root" if os.geteuid() == 0 else "a user namespace with subordinate ids"
    return f"{who}, {namespace.emulation(architecture) or 'no emulation'}"
