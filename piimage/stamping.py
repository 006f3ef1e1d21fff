"""Stamps: the sectors that make a variant one node. No appliance, no mount: bytes over slots, FAT by mtools.

A stamp file is a JSON header line, then the bytes of its patches one after the other. It holds the node's
secrets, so it is its owner's alone (0600).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage.disk import fat
from piimage.disk.atomic import write_bytes
from piimage.disk.slots import Patch, fill
from piimage.distros.boot_loader import command_line
from piimage.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.facts import Facts
    from piimage.plan.plan import StampPlan
    from piimage.variant import Variant

VERSION = 1
#: Where the MBR keeps the disk signature that PARTUUIDs begin with.
_DISK_ID_OFFSET = 0x1B8
#: Units of these kinds name partitions, systemd.mount(5), systemd.swap(5).
_UNITS, _MOUNTS = "/etc/systemd/system", (".mount", ".swap")


@dataclass(frozen=True, slots=True)
class NodeStamp:
    """The patches of one node over the variant `variant` (its id)."""

    node: str
    variant: str
    build: str
    patches: tuple[Patch, ...] = field(repr=False)


def stamp(cluster: Cluster, plan: StampPlan, variant: Variant, facts: Facts) -> NodeStamp:
    """The patches for one node: its slots, its files on the firmware partition, its disk signature."""
    patches = fill(variant.slots, plan.slots)
    firmware = facts.table.partition(facts.mounts[facts.firmware])
    patches += fat.stage(variant.image, firmware.start, plan.firmware)
    signature = own_disk_id(cluster, plan.node.name, facts)
    if signature is not None:
        patches.append(Patch(_DISK_ID_OFFSET, signature))
    return NodeStamp(plan.node.name, variant.id, plan.build, tuple(patches))


def disk_id(cluster: Cluster, node: str) -> bytes:
    """Four bytes of MBR signature, the same at every build and different on every node: two cards in one host."""
    digest = hashlib.sha256(f"{cluster.name}\0{node}".encode()).digest()[:4]
    return digest if any(digest) else b"\x01\0\0\0"


def own_disk_id(cluster: Cluster, node: str, facts: Facts) -> bytes | None:
    """`disk_id` if the stamp sets it, else None."""
    return None if _names_partuuid(facts) else disk_id(cluster, node)


def _names_partuuid(facts: Facts) -> bool:
    """Whether the base finds its partitions by PARTUUID: then first boot renews the signature, not we."""
    units = (p for p in facts.files if p.startswith(f"{_UNITS}/") and p.endswith(_MOUNTS))
    texts = [command_line(facts), *map(facts.text, ("/etc/fstab", *units))]
    return any(name in text for text in texts for name in ("PARTUUID=", "/by-partuuid/"))


def write_stamp(path: Path, made: NodeStamp) -> None:
    """Write a stamp file, all or nothing."""
    header: dict[str, Any] = {
        "version": VERSION,
        "node": made.node,
        "variant": made.variant,
        "build": made.build,
        "patches": [[patch.offset, len(patch.data)] for patch in made.patches],
    }
    body = b"".join(patch.data for patch in made.patches)
    write_bytes(path, json.dumps(header, sort_keys=True).encode() + b"\n" + body, mode=0o600)


def read_stamp(path: Path) -> NodeStamp:
    """Read a stamp file; raises `ImageError` for anything else."""
    try:
        line, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(line)
        patches, at = [], 0
        for offset, length in header["patches"]:
            patches.append(Patch(offset, body[at : at + length]))
            at += length
        inside = all(offset >= 0 <= length for offset, length in header["patches"])
        whole = header["version"] == VERSION and at == len(body) and inside
        found = NodeStamp(header["node"], header["variant"], header["build"], tuple(patches))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImageError(f"there is no stamp `{path}` to read: {reason}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"`{path}` is not a stamp file") from error
    if not whole:
        raise ImageError(f"`{path}` is cut short or of another version of piimage")
    return found
