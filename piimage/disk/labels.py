"""SELinux labels given to files that have none: what was installed where no SELinux runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.disk import ext4_labels
from piimage.disk.guestfs import Appliance
from piimage.disk.rootfs import EXT, open_tree
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from piimage.facts import Partition
    from piimage.progress import Progress

NAME = "security.selinux"
#: user:role:type, and with MLS a range.
_LABEL = re.compile(r"[\w.]+(:[\w.,-]+){2,4}", re.ASCII)


def fill_in(
    image: Path,
    partition: Partition,
    label: Callable[[str, str], str | None],
    progress: Progress,
) -> int:
    """Label what has no label in the file system of `partition`; returns how many inodes got one.

    `label` takes a path and a kind as in `FileFact`. An inode with several names is labelled for the first. Raises
    `ImageError` for a file system that cannot be changed.
    """
    wanted: dict[int, tuple[str, str]] = {}
    with open_tree(image, partition.start) as tree:
        for path, inode in tree.walk():
            if inode.number in wanted or NAME in tree.attributes(inode):
                continue
            found = label(path, inode.kind)
            if found is not None and _LABEL.fullmatch(found):
                wanted[inode.number] = (path, found)
    if not wanted:
        return 0
    if partition.filesystem is not None and partition.filesystem.type in EXT:
        labels = {number: found for number, (_, found) in wanted.items()}
        ext4_labels.write(image, partition.start, labels)
    else:
        _by_appliance(image, partition, dict(wanted.values()), progress)
    return len(wanted)


def _by_appliance(
    image: Path, partition: Partition, labels: dict[str, str], progress: Progress
) -> None:
    with Appliance(image, progress=progress) as appliance:
        appliance.mount(partition, "/")
        for path, label in sorted(labels.items()):
            if not path.isprintable():
                raise ImageError(
                    f"`{image.name}` has a file whose name cannot be labelled: {path!r}"
                )
            appliance.call("lsetxattr", NAME, label, len(label), path)
