"""A copy of a base with room for packages in its root file system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from piimage.disk.atomic import require_space, write_errors
from piimage.disk.guestfs import Appliance, device
from piimage.disk.rootfs import EXT, open_tree, require_checker
from piimage.disk.sparse import allocated_bytes, copy_part, copy_sparse
from piimage.disk.table import grow_last_partition, read_table
from piimage.errors import UnsupportedError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from piimage.bake.lock import Package
    from piimage.bases.record import Base
    from piimage.facts import Partition
    from piimage.progress import Progress, Task

MIB = 1 << 20
#: Kept free for what is written later: a role's files, the first boot before the root is grown.
SPARE = 384 * MIB
#: Partitions end at a multiple of this, as on images made here.
_GRAIN = 4 * MIB
_PLACE = "free some space, or set `PIIMAGE_CACHE` to a directory with some GiB free"


def needed(packages: Sequence[Package]) -> int:
    """Bytes that `packages` take in the root file system at most.

    Installed-Size counts whole KiB, not whole blocks, and neither directories nor dpkg's own records.
    """
    return sum(package.installed for package in packages) * 1024 * 11 // 10 + 16 * MIB


def growth(free: int, wanted: int) -> int:
    """Bytes by which the root must grow to have `wanted` more and as much room afterwards as now, at most SPARE."""
    lacking = wanted + min(free, SPARE) - free
    return -(-max(lacking, 0) // _GRAIN) * _GRAIN


def copy_with_room(base: Base, wanted: int, image: Path, progress: Progress) -> Partition:
    """Copy the base to the new file `image`, `wanted` bytes more in the root file system; return its partition.

    UUID, label and disk signature stay. Raises `UnsupportedError` when the root is not the last partition and too
    small, `WriteFailedError` when this machine's disk is full.
    """
    table = base.facts.table
    root = table.partition(base.facts.mounts["/"])
    outside = table.outside(root)
    require_checker(root)
    with open_tree(base.path, root.start) as tree:
        more = growth(tree.free, wanted)
    require_space(image.parent, allocated_bytes(base.path) + wanted, hint=_PLACE)
    if not more:
        copy_sparse(base.path, image, progress)
        image.chmod(0o600)
        return root
    last = max(table.partitions, key=lambda p: p.start)
    if last.number != outside.number:
        raise UnsupportedError(
            f"the root file system of base `{base.name}` lacks {-(-more // MIB)} MiB for the packages, and partition "
            f"{last.number} behind it is in the way",
            hint="use a base whose last partition is the root file system",
        )
    if root.filesystem is None or root.filesystem.type not in EXT or root.volume:
        return _grown_inside(base, root, outside.start + outside.size + more, image, progress)
    end = root.start + root.size + more
    with (
        progress.step(f"copying {base.path.name}") as task,
        write_errors(image),
        base.path.open("rb") as source,
    ):
        task.total(table.size)
        with image.open("wb") as target:
            image.chmod(0o600)
            target.truncate(root.size)
            copy_part(
                source.fileno(), target.fileno(), start=root.start, length=root.size, task=task
            )
        # resize2fs cuts a file off at the file system's length, so what lies before comes afterwards.
        run(["resize2fs", "-f", image, f"{(root.size + more) // 1024}K"])
        _insert(image, root.start, task)
        with image.open("r+b") as target:
            copy_part(source.fileno(), target.fileno(), start=0, length=root.start, task=task)
            os.ftruncate(target.fileno(), end)
    return grow_last_partition(image, end).partition(root.number)


def _grown_inside(
    base: Base, root: Partition, end: int, image: Path, progress: Progress
) -> Partition:
    """The same where what grows the file system wants it mounted, or has to grow a volume first: in the appliance."""
    copy_sparse(base.path, image, progress)
    image.chmod(0o600)
    outside = base.facts.table.outside(root)
    grow_last_partition(image, end)
    with Appliance(image, progress=progress) as appliance:
        if root.volume:
            appliance.call("pvresize", device(outside))
            appliance.call("lvresize_free", device(root), 100)
        appliance.mount(root, "/")
        if root.filesystem is not None and root.filesystem.type in EXT:
            appliance.call("resize2fs", device(root))
        else:
            appliance.call("xfs_growfs", "/")
    return read_table(image).partition(root.number)


def _insert(image: Path, length: int, task: Task) -> None:
    """Move a file's content `length` bytes back: in no time where the file system can, else by copying."""
    if (
        run(
            ["fallocate", "--insert-range", "--offset", "0", "--length", str(length), image],
            check=False,
        ).returncode
        == 0
    ):
        return
    part = image.with_name(f"{image.name}.root")
    image.rename(part)
    with part.open("rb") as source, image.open("wb") as target:
        image.chmod(0o600)
        size = os.fstat(source.fileno()).st_size
        os.ftruncate(target.fileno(), length + size)
        copy_part(source.fileno(), target.fileno(), start=0, length=size, at=length, task=task)
    part.unlink()
