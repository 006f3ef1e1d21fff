"""The imprint of a stamp: digests of what makes a variant one node, so that a card can be proven without its secrets.

It is its owner's alone, like the stamp: with all else known, the digest of a file lets one try passphrases.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from piimage import artifact, stamping
from piimage.disk.atomic import write_bytes
from piimage.disk.slots import PADDING
from piimage.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.facts import Facts
    from piimage.plan.plan import StampPlan
    from piimage.variant import Variant

#: The key of the document; another version has another one.
_KEY = "imprint 1"
#: Where a build keeps censuses and imprints, below its directory.
PROOF = "proof"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imprint:
    """`slots` (padded) and `firmware` (names on the FAT) map paths to sizes and SHA-256 digests.

    `disk_id` is 8 hex digits where the stamp sets the disk's signature, else None.
    """

    node: str
    build: str
    variant: str
    instance_id: str
    disk_id: str | None
    slots: Mapping[str, tuple[int, str]]
    firmware: Mapping[str, tuple[int, str]]


def of_stamp(plan: StampPlan, variant: Variant, disk_id: bytes | None) -> Imprint:
    """The imprint of a stamp that is planned over `variant`."""
    slots = {
        path: plan.slots[path].ljust(place.size, PADDING)
        for path, place in variant.slots.slots.items()
    }
    return Imprint(
        node=plan.node.name,
        build=plan.build,
        variant=variant.id,
        instance_id=plan.instance_id,
        disk_id=disk_id[::-1].hex() if disk_id else None,
        slots={path: digest(content) for path, content in slots.items()},
        firmware={name: digest(content) for name, content in plan.firmware.items()},
    )


def digest(content: bytes) -> tuple[int, str]:
    """Size and SHA-256 of a file's content."""
    return len(content), hashlib.sha256(content).hexdigest()


def keep(  # noqa: PLR0917 -- each is of a type of its own
    directory: Path,
    cluster: Cluster,
    plan: StampPlan,
    variant: Variant,
    facts: Facts,
    builds: Collection[str],
) -> None:
    """Leave in a build's `directory` what proves the node: its imprint, and the census of its variant.

    Imprints of builds of the node that are neither this one nor among `builds` go.
    """
    folder = keep_census(directory, variant)
    path = imprint_path(directory, plan.node.name, plan.build)
    if not path.exists():
        made = of_stamp(plan, variant, stamping.own_disk_id(cluster, plan.node.name, facts))
        text = json.dumps({_KEY: asdict(made)}, indent=1, sort_keys=True)
        write_bytes(path, text.encode() + b"\n", mode=0o600)
    for other in folder.glob(f"{plan.node.name}.*.json"):
        if other != path and other.name.split(".")[1] not in builds:
            other.unlink(missing_ok=True)


def keep_census(directory: Path, variant: Variant) -> Path:
    """Leave in a build's `directory` the census of the variant; returns the folder that it is in."""
    folder = directory / PROOF
    artifact.prepare(folder)
    census = census_path(directory, variant.id)
    if not census.exists():
        write_bytes(census, variant.census.read_bytes(), mode=0o644)
    return folder


def census_path(directory: Path, variant: str) -> Path:
    """Where a build's directory has the census of the variant of that id."""
    return directory / PROOF / f"{variant[:16]}.census.gz"


def imprint_path(directory: Path, node: str, build: str) -> Path:
    """Where it has the imprint of a node's build."""
    return directory / PROOF / f"{node}.{build}.json"


def read(path: Path) -> Imprint | None:
    """The imprint in the file, None if there is none; raises `ImageError` for a file that is no imprint."""
    try:
        document = json.loads(path.read_bytes())
        document = document[_KEY]
        for name in ("slots", "firmware"):
            document[name] = {path: (int(n), str(d)) for path, (n, d) in document[name].items()}
        return Imprint(**document)
    except FileNotFoundError:
        return None
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise ImageError(f"cannot read `{path}`: {words}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(
            f"`{path}` is damaged or of another version of piimage",
            hint="remove it: `piimage build` makes it again",
        ) from error
