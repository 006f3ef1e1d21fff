"""Facts: what an image holds, read once and kept as plain data.

Pure: `piimage.bases` reads them, `components` and `plan` reason over them, nobody here opens a file.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Raised whenever a field changes meaning, so that cached facts of an older piimage are read anew.
FACTS_VERSION = 4
#: As many symbolic links as we follow; the kernel stops at 40.
_MAX_LINKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """One file system: `type` as blkid names it, `label` and `uuid` or empty strings."""

    type: str
    label: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One entry of the table; `start` and `size` in bytes, `type` as the MBR type byte in lower-case hex.

    A logical volume of LVM that lies in one piece is one too: `volume` is then `GROUP/NAME` and `type` is `linear`.
    """

    number: int
    start: int
    size: int
    type: str
    filesystem: Filesystem | None = None
    volume: str = ""

    @property
    def name(self) -> str:
        """What people call it: `partition 2`, `volume fedora/root`."""
        return f"volume {self.volume}" if self.volume else f"partition {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTable:
    """`label` is `dos`; `disk_id` the MBR signature as 8 lower-case hex digits; `size` of the image in bytes.

    `volumes` are the logical volumes in its partitions, with numbers from 1001 on, which no partition has. One that
    does not lie in one piece has the place of its physical volume, no file system, and as `type` what it is instead.
    """

    label: str
    disk_id: str
    sector_size: int
    size: int
    partitions: tuple[Partition, ...]
    volumes: tuple[Partition, ...] = ()

    @property
    def holders(self) -> tuple[Partition, ...]:
        """All that may hold a file system."""
        return self.partitions + self.volumes

    def partition(self, number: int) -> Partition:
        """The partition or volume of that number; raises `KeyError`."""
        for partition in self.holders:
            if partition.number == number:
                return partition
        raise KeyError(number)

    def inside(self, partition: Partition) -> list[Partition]:
        """The volumes in `partition`, in their order on the disk."""
        end = partition.start + partition.size
        found = [v for v in self.volumes if partition.start <= v.start < end]
        return sorted(found, key=lambda volume: volume.start)

    def outside(self, partition: Partition) -> Partition:
        """The entry of the table that `partition` is, or in which it is as a volume."""
        return next(p for p in self.partitions if partition is p or partition in self.inside(p))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without what only images with volumes have; `from_json` is the inverse."""
        data = asdict(self)
        for each in (*data["partitions"], *data["volumes"]):
            if not each["volume"]:
                del each["volume"]
        if not self.volumes:
            del data["volumes"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PartitionTable:
        """Read `to_json` back; raises `KeyError` or `TypeError` for anything else."""
        found = {
            key: tuple(_partition(each) for each in data.get(key, ()))
            for key in ("partitions", "volumes")
        }
        return cls(**{**data, **found})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFact:
    """One path of the image: `kind` is `file`, `dir`, `link` or `other`.

    `content` is None for files over 1 MiB and for whatever is not a file; `target` is set for links.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    content: bytes | None = None
    target: str | None = None

    @property
    def text(self) -> str:
        """Content as text; bytes that are not UTF-8 survive a round trip (`surrogateescape`)."""
        return (self.content or b"").decode(errors="surrogateescape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A systemd unit file of the image and what its [Install] section asks for."""

    path: str
    wanted_by: tuple[str, ...] = ()
    required_by: tuple[str, ...] = ()
    alias: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    enabled: bool = False
    masked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OsRelease:
    """The fields of os-release(5) that decide something."""

    id: str
    version_id: str = ""
    codename: str = ""
    id_like: tuple[str, ...] = ()
    pretty: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the pure middle may know about an image.

    `mounts` maps mount points of fstab (or mount units) to partition numbers: always `/`, and `firmware`
    names the mount point of the partition that the Pi's firmware reads. `files` covers all of /etc, the
    firmware partition's text files, and the parents of whatever components write; a path under the firmware
    mount point is that partition's file. `packages` maps installed names to versions. `locales` are names as
    `locale -a` would print them; `timezones` is empty when the image has no zoneinfo.
    `network_stack` is `netplan-networkd`, `netplan-networkmanager`, `networkmanager`, `dhcpcd` or `ifupdown`.
    `made` is when the image was made, in seconds since the epoch: the earliest time a node may believe in.
    """

    image_id: str
    os: OsRelease
    architecture: str
    table: PartitionTable
    mounts: Mapping[str, int]
    firmware: str
    files: Mapping[str, FileFact]
    units: Mapping[str, Unit]
    packages: Mapping[str, str]
    network_stack: str
    rpi_issue: str | None = None
    kernels: tuple[str, ...] = ()
    locales: frozenset[str] = frozenset()
    timezones: frozenset[str] = frozenset()
    cloud_init: str | None = None
    made: int | None = None

    def text(self, path: str) -> str:
        """Text of a file, or `""` when the image has none at `path` (links inside the image are followed)."""
        fact = self.files.get(path)
        hops = 0
        while fact is not None and fact.kind == "link" and fact.target and hops < _MAX_LINKS:
            target = fact.target
            if not target.startswith("/"):
                target = path.rsplit("/", 1)[0] + "/" + target
            path, hops = _normal(target), hops + 1
            fact = self.files.get(path)
        return fact.text if fact is not None and fact.kind == "file" else ""

    def has(self, path: str) -> bool:
        """Whether the image holds anything at `path` (only for paths that `files` covers)."""
        return path in self.files

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the inverse."""
        data = asdict(self)
        data["table"] = self.table.to_json()
        for fact in data["files"].values():
            if fact["content"] is not None:
                fact["content"] = base64.b64encode(fact["content"]).decode()
        data["locales"], data["timezones"] = sorted(self.locales), sorted(self.timezones)
        data["version"] = FACTS_VERSION
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Facts:
        """Read `to_json` back; raises `ValueError` for another `FACTS_VERSION`."""
        if data.get("version") != FACTS_VERSION:
            raise ValueError("facts of another version")
        return cls(
            image_id=data["image_id"],
            os=OsRelease(**{**data["os"], "id_like": tuple(data["os"]["id_like"])}),
            architecture=data["architecture"],
            table=PartitionTable.from_json(data["table"]),
            mounts=data["mounts"],
            firmware=data["firmware"],
            files={
                path: FileFact(
                    **{
                        **f,
                        "content": base64.b64decode(f["content"])
                        if f["content"] is not None
                        else None,
                    }
                )
                for path, f in data["files"].items()
            },
            units={name: _unit(unit) for name, unit in data["units"].items()},
            packages=data["packages"],
            network_stack=data["network_stack"],
            rpi_issue=data["rpi_issue"],
            kernels=tuple(data["kernels"]),
            locales=frozenset(data["locales"]),
            timezones=frozenset(data["timezones"]),
            cloud_init=data["cloud_init"],
            made=data.get("made"),
        )


def _partition(data: Mapping[str, Any]) -> Partition:
    system = data["filesystem"]
    return Partition(**{**data, "filesystem": Filesystem(**system) if system else None})


def _unit(data: Mapping[str, Any]) -> Unit:
    """Lists of JSON are tuples of ours."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Unit(**values)


def _normal(path: str) -> str:
    """`path` without `.` and `..`; never above the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
