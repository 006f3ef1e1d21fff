"""Variants: the base with a role's Delta applied, made once, kept by content, without secret or identity."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.apply import APPLY_VERSION, apply, settle
from piimage.bases import apart
from piimage.bases.cache import check_name
from piimage.bases.known import ELSEWHERE
from piimage.delta import Delta, File
from piimage.disk import census, rootfs
from piimage.disk.atomic import require_space, sync, write_bytes
from piimage.disk.intake import import_image
from piimage.disk.slots import SlotMap, locate
from piimage.disk.sparse import allocated_bytes, copy_sparse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from piimage.bases.cache import Cache
    from piimage.bases.record import Base
    from piimage.plan.plan import VariantPlan
    from piimage.progress import Progress

_IMAGE, _RECORD, CENSUS = "image.img", "variant.json", "census.json.gz"


@dataclass(frozen=True, slots=True)
class Variant:
    """A finished variant: its content id, the raw image (0444), where its slots lie, and a census of it."""

    id: str
    image: Path
    slots: SlotMap
    census: Path


def content_digest(made: Variant) -> str:
    """SHA-256 (hex) over what the variant holds: content, mode, owner and attributes of every file."""
    return hashlib.sha256(gzip.decompress(made.census.read_bytes())).hexdigest()


def variant_id(base: Base, plan: VariantPlan) -> str:
    """SHA-256 (hex) over all that decides the bytes of the variant."""
    text = "\n".join([base.id, plan.digest(), str(APPLY_VERSION)])
    return hashlib.sha256(text.encode()).hexdigest()


def ensure(base: Base, plan: VariantPlan, *, cache: Cache, progress: Progress) -> Variant:
    """The variant from the cache, or made now with one appliance launch.

    Made in a scratch directory, synced, then renamed to its id: an interrupted build leaves nothing there.
    """
    identity = variant_id(base, plan)
    home = cache.variant_dir(identity)
    with cache.lock(f"variant-{identity}"):
        if not ((home / _RECORD).exists() and (home / _IMAGE).exists()):
            _make(base, plan, home, cache, progress)
        if not (home / CENSUS).exists():  # made by an older piimage
            _count(base, home, progress)
        cache.used(home)
    return _open(identity, home)


def adopt(  # noqa: PLR0917 -- each is of a type of its own
    base: Base, plan: VariantPlan, image: Path, sha256: str, cache: Cache, progress: Progress
) -> Variant:
    """The variant whose `image`, raw or packed, was built elsewhere from `base` and `plan`.

    It is kept apart from those made here: its id says what it should be, the `sha256` of its file what it is. Where
    its slots lie is read from it. Raises `VerifyError` for another file, `ImageError` for one that is no such variant.
    """
    identity = variant_id(base, plan)
    home = cache.variant_dir(f"{identity}.{sha256[:16]}")
    with cache.lock(f"variant-{home.name}"):
        if not ((home / _RECORD).exists() and (home / _IMAGE).exists()):

            def bring(draft: Path) -> None:
                import_image(image, draft, sha256=sha256, progress=progress)

            with progress.step(f"taking in the variant for role `{plan.role.name}`"):
                _keep(base, plan, home, cache, progress, bring)
        cache.used(home)
    if "/" not in base.name:
        (cache.directory(ELSEWHERE) / check_name(base.name)).touch()
    return _open(identity, home)


def _open(identity: str, home: Path) -> Variant:
    record = json.loads((home / _RECORD).read_bytes())
    return Variant(identity, home / _IMAGE, SlotMap.from_json(record["slots"]), home / CENSUS)


def _make(base: Base, plan: VariantPlan, home: Path, cache: Cache, progress: Progress) -> None:
    def fill(image: Path) -> None:
        require_space(image.parent, allocated_bytes(base.path) + _content(plan.delta))
        copy_sparse(base.path, image, progress)
        image.chmod(0o600)
        apply(image, plan.delta, base.facts, progress)
        settle(image, base.path, plan.delta, base.facts)

    with progress.step(f"making the variant for role `{plan.role.name}`"):
        _keep(base, plan, home, cache, progress, fill)


def _keep(  # noqa: PLR0917 -- each is of a type of its own
    base: Base,
    plan: VariantPlan,
    home: Path,
    cache: Cache,
    progress: Progress,
    fill: Callable[[Path], None],
) -> None:
    """The image that `fill` writes, checked, with its slots and census, as the directory `home`."""
    cache.directory("variants")
    parts = [
        base.facts.table.partition(n) for n in (base.facts.mounts["/"], *_apart(base).values())
    ]
    for part in parts:
        rootfs.require_checker(part)
    with cache.scratch() as scratch:
        draft = scratch / "variant"
        draft.mkdir()
        image = draft / _IMAGE
        fill(image)
        with progress.step("checking the root file system and finding the slots"):
            for part in parts:
                rootfs.check(image, part)
            sizes = {path: slot.size for path, slot in plan.slots.items()}
            slots = locate(image, parts[0].start, sizes)
        _count(base, draft, progress)
        record = {"id": home.name, "base": base.id, "slots": slots.to_json()}
        write_bytes(draft / _RECORD, json.dumps(record, sort_keys=True).encode())
        image.chmod(0o444)
        sync(image)
        if home.exists():  # a directory that lacks something: an older piimage, or a hand
            home.rename(scratch / "old")
        draft.rename(home)
        sync(home.parent)


def _count(base: Base, home: Path, progress: Progress) -> None:
    """Write the census of the variant in `home`, which `piimage verify` holds images and cards against."""
    facts = base.facts
    with progress.step("taking a census of the files"):
        found = census.take(
            home / _IMAGE,
            root=facts.mounts["/"],
            firmware=facts.mounts[facts.firmware],
            place=facts.firmware,
            apart=_apart(base),
        )
        write_bytes(home / CENSUS, found.encode())


def _apart(base: Base) -> dict[str, int]:
    return apart.places(base.facts.mounts, base.facts.firmware, base.facts.table)


def _content(delta: Delta) -> int:
    """Bytes that applying `delta` adds at most."""
    files = sum(len(entry.content) for _, entry in delta if isinstance(entry, File))
    return files + sum(slot.size for slot in delta.slots.values())
