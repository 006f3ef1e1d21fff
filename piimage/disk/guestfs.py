"""The libguestfs appliance: one launch, a few calls, a checked shutdown. The only module that imports guestfs.

Images from outside are parsed in here and never by the host's kernel. Formats and file-system types are
forced, the network stays off, and the appliance sees nothing but the one scratch image.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from piimage.disk.watchdog import children, watched
from piimage.errors import (
    ImageError,
    MissingToolError,
    ToolFailedError,
    UnsupportedError,
    WriteFailedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from piimage.facts import Partition
    from piimage.progress import Progress, Task

T = TypeVar("T")

#: Seconds that a launch may take. A broken KVM, as nested ones are, may crash QEMU or leave it standing for ever; a
#: working one needs some seconds, emulation on a busy machine some minutes.
_KVM_LIMIT, _LIMIT = 30.0, 600.0


class Appliance:
    """A running appliance with one raw image attached at `/dev/sda`.

    Use as a context manager: leaving the block without an exception unmounts and shuts down *checked* (an
    error there means that the image was not written out); with an exception the appliance is just killed.
    """

    def __init__(self, image: Path, *, progress: Progress, readonly: bool = False) -> None:
        self._image = image
        self._progress = progress
        self._readonly = readonly
        self._handle: Any = None
        self._pid = 0
        self._refused = 0

    def __enter__(self) -> Self:
        with self._progress.step("starting the libguestfs appliance") as task:
            self._handle = _launch(self._image, self._readonly, self._progress, task)
        self._pid = self._handle.get_pid()
        self._refused = self._refusals()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, *_: object) -> None:
        try:
            if kind is None:
                if not self._readonly:
                    self.call("sync")
                self.call("umount_all")
                self._check_writes()
                self.call("shutdown")
            elif issubclass(kind, ImageError):
                with suppress(ImageError):  # an appliance that is gone tells nothing more
                    self._check_writes()
        finally:
            handle, self._handle = self._handle, None
            handle.close()

    def _check_writes(self) -> None:
        """Raise `WriteFailedError` if the host did not take what the appliance wrote: Linux may tell nobody."""
        if self._refusals() > self._refused:
            raise WriteFailedError(
                f"the disk did not take all of `{self._image.name}`: it is full or broken",
                hint="free some space",
            )

    def _refusals(self) -> int:
        """How many requests to disks have failed so far (sysfs, of the Linux SCSI layer).

        Of all disks: which of them is `sda` in there changes from launch to launch.
        """
        counts = self.script("cat /sys/block/sd*/device/ioerr_cnt 2>/dev/null || true")
        return sum(int(count, 0) for count in counts.split())

    def mount(self, partition: Partition, mountpoint: str) -> None:
        """Mount a partition, or the logical volume of that name, with its type forced; FAT with UTF-8 names.

        Inode tables that mkfs has left for later stay so: the kernel would begin with them at a moment of its own.
        """
        if partition.filesystem is None:
            raise ImageError(f"{partition.name} (`{mountpoint}`) holds no known file system")
        fstype = partition.filesystem.type
        if fstype == "xfs" and not self.call("feature_available", ["xfs"]):
            raise MissingToolError(
                "the libguestfs appliance knows no xfs, which the image has",
                hint="on Debian: `apt-get install libguestfs-xfs`",
            )
        options = {"vfat": "utf8", "ext4": "noinit_itable"}.get(fstype, "")
        if self._readonly:
            options = ",".join(filter(None, ["ro", options]))
        if mountpoint != "/" and not self.call("is_dir", mountpoint):
            raise ImageError(
                f"the image has no directory `{mountpoint}` to mount {partition.name} on"
            )
        try:
            self.call("mount_vfs", options, fstype, device(partition), mountpoint)
        except ImageError as error:
            said = self.script("dmesg | grep 'unknown incompatible features' || true")
            if fstype == "xfs" and said:
                raise UnsupportedError(
                    f"the XFS of {partition.name} was made by a newer Linux than this machine's, which cannot mount it",
                    hint="build on a system with a newer kernel: Debian 13 has 6.12",
                ) from error
            raise

    def call(self, name: str, *args: object, **kwargs: object) -> Any:  # noqa: ANN401 -- guestfs is untyped
        """Call a libguestfs function by its Python name; its failure becomes an `ImageError`."""
        with watched(lambda: (self._pid,)):
            return _call(getattr(self._handle, name), *args, **kwargs)

    def script(self, script: str) -> str:
        """Run a shell script in the appliance (not in the guest); the image is mounted at `/sysroot`.

        Returns standard output. `debug` is libguestfs's own way in; virt-customize uses it too. For work
        over a whole tree, where a call per file would take minutes.
        """
        return str(self.call("debug", "sh", [script]))


def device(partition: Partition) -> str:
    """What the appliance calls a partition of its image, or a logical volume on it."""
    return f"/dev/{partition.volume}" if partition.volume else f"/dev/sda{partition.number}"


def _launch(image: Path, readonly: bool, progress: Progress, task: Task) -> Any:  # noqa: ANN401, FBT001 -- untyped handle; private
    """A launched handle; KVM is tried by using it, and when it crashes the launch is repeated with TCG."""
    settings = os.environ.get("LIBGUESTFS_BACKEND_SETTINGS")
    if settings is not None or not _kvm_known_bad():
        try:
            limit = _KVM_LIMIT if settings is None else _LIMIT
            return _start(image, readonly, task, settings, limit)
        except ToolFailedError:
            if settings is not None:
                raise
            _remember_kvm_is_bad()
            progress.say(
                "KVM does not work on this machine: using QEMU's emulation (TCG), which is slower"
            )
    return _start(image, readonly, task, "force_tcg", _LIMIT)


def _start(image: Path, readonly: bool, task: Task, settings: str | None, limit: float) -> Any:  # noqa: ANN401, FBT001 -- untyped handle; private
    """One launch attempt of at most `limit` seconds."""
    guestfs = _module()
    thread = threading.get_native_id()
    before = children(thread)
    handle = guestfs.GuestFS(python_return_dict=True, close_on_exit=False)
    messages: list[str] = []

    def collect(_event: int, _handle: int, text: str | bytes, _array: object) -> None:
        # Bytes in libguestfs 1.54 (Debian 13), text in 1.48 (Debian 12).
        messages.append(text if isinstance(text, str) else text.decode(errors="replace"))

    def move(_event: int, _handle: int, _text: str, array: list[int]) -> None:
        task.total(array[3])
        task.note(f"{array[2] * 100 // max(array[3], 1)} %")

    handle.set_event_callback(
        collect, guestfs.EVENT_APPLIANCE | guestfs.EVENT_LIBRARY | guestfs.EVENT_WARNING
    )
    handle.set_event_callback(move, guestfs.EVENT_PROGRESS)
    # QEMU would stand still on a full disk and wait for somebody to make room.
    handle.config("-global", "scsi-hd.werror=report")
    if not os.environ.get("LIBGUESTFS_BACKEND"):
        handle.set_backend("direct")
    if settings:
        handle.set_backend_settings(settings.split(":"))
    options: dict[str, object] = {"format": "raw", "readonly": readonly}
    if not readonly:
        options["cachemode"] = (
            "unsafe"  # a scratch copy: fsynced on the host before it gets its name
        )
    late = False
    try:
        with watched(lambda: children(thread) - before, limit) as watch:
            try:
                handle.add_drive_opts(str(image), **options)
                handle.launch()
            finally:
                late = watch.late
    except KeyboardInterrupt:
        handle.close()
        raise
    except RuntimeError as error:
        handle.close()
        why = f"it was not up after {limit:.0f} s" if late else _last_words(error, messages)
        raise ToolFailedError(
            f"the libguestfs appliance did not start: {why}",
            hint="`libguestfs-test-tool` shows why; on Ubuntu the kernel in /boot must be readable",
        ) from error
    return handle


def _module() -> Any:  # noqa: ANN401 -- guestfs has no stubs
    """The guestfs module, or `MissingToolError` with the cure."""
    try:
        import guestfs  # noqa: PLC0415 -- only builds need it, and only the distribution's python3 has it
    except ImportError as error:
        raise MissingToolError(
            "the Python module `guestfs` is not available to this interpreter",
            hint=f"on Debian: `apt-get install python3-guestfs`, and a virtual environment made with "
            f"`/usr/bin/python3 -m venv --system-site-packages` (this is {sys.executable})",
        ) from error
    return guestfs


def _call(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Call a handle's method; guestfs raises bare RuntimeError for everything."""
    try:
        return function(*args, **kwargs)
    except RuntimeError as error:
        raise ImageError(f"libguestfs: {error}") from error


def _last_words(error: RuntimeError, messages: list[str]) -> str:
    """The most telling line of a failed launch."""
    for text in reversed(messages):
        for line in reversed(text.splitlines()):
            if any(
                sign in line for sign in ("supermin", "Assertion", "error:", "cannot", "denied")
            ):
                return line.strip()
    return str(error).splitlines()[0]


def _kvm_mark() -> Path:
    """Remembers, until reboot, that KVM crashed: the probe costs seconds and core dumps."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Path(tempfile.gettempdir()) / f"piimage-{os.getuid()}-no-kvm-{boot}"


def _kvm_known_bad() -> bool:
    return not os.access("/dev/kvm", os.R_OK | os.W_OK) or _kvm_mark().exists()


def _remember_kvm_is_bad() -> None:
    _kvm_mark().touch()


def installed() -> bool:
    """Whether this interpreter has the module."""
    return importlib.util.find_spec("guestfs") is not None


def environment() -> Mapping[str, str]:
    """What decides how the appliance starts, for the manifest and for doctor."""
    keys = (
        "LIBGUESTFS_BACKEND",
        "LIBGUESTFS_BACKEND_SETTINGS",
        "LIBGUESTFS_PATH",
        "SUPERMIN_KERNEL",
    )
    return {key: os.environ[key] for key in keys if key in os.environ}
