"""Baked bases: a base with a layer of packages, made once, kept by content.

`baked/ID/` holds `image.img` (0444), `facts.json` and `baked.json`, and appears by one rename: a bake that fails or
is killed leaves nothing there. A baked base is a `Base` like any other, and a layer may be baked on top of it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING

from piimage.bake import failures, room
from piimage.bake.engine import Job
from piimage.bases.facts_reader import read_facts
from piimage.bases.record import Base, Origin
from piimage.disk import labels as labelling
from piimage.disk.atomic import sync, write_bytes
from piimage.disk.ext4_times import restore_access_times
from piimage.disk.rootfs import EXT
from piimage.distros.file_contexts import contexts
from piimage.errors import PiimageError
from piimage.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from piimage.bake.engine import Engine
    from piimage.bake.lock import Layer
    from piimage.bases.cache import Cache
    from piimage.facts import Partition
    from piimage.progress import Progress

#: Raised whenever a bake gives other bytes than before.
BAKE_VERSION = 1
_IMAGE, _FACTS, _RECORD = "image.img", "facts.json", "baked.json"
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)


def identity(base: Base, layer: Layer, script: bytes) -> str:
    """SHA-256 (hex) over all that decides what a bake gives; `script` is what `packaging.script` gives."""
    native = resources.files("piimage.bake").joinpath("native.sh").read_bytes()
    parts = [base.id, layer.digest(), str(BAKE_VERSION)]
    parts += [hashlib.sha256(text).hexdigest() for text in (script, native)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find(base: Base, layer: Layer, script: bytes, cache: Cache) -> Base | None:
    """The baked base from the cache, or None."""
    return _open(cache.root / "baked" / identity(base, layer, script), base, layer)


def ensure(
    base: Base,
    layer: Layer,
    *,
    script: bytes,
    files: Callable[[], tuple[Path, ...]],
    engine: Callable[[], Engine],
    cache: Cache,
    progress: Progress,
) -> Base:
    """`base` with `layer` on top, from the cache or made now.

    `files` gives the package files and `engine` what runs the script; neither is called when there is nothing to do.
    Raises what they raise, and `ToolFailedError` that names the package which failed and where the log is.
    """
    key = identity(base, layer, script)
    home = cache.directory("baked") / key
    with cache.lock(f"baked-{key}"):
        found = _open(home, base, layer)
        if found is not None:
            cache.used(home)
            return found
        packages = files()
        count = len(layer.packages)
        title = f"baking {count} package{'s' * (count != 1)} into base `{base.name}`"
        with progress.step(title), cache.scratch() as scratch:
            _bake(base, layer, script, packages, engine(), scratch, cache, progress)
            draft = scratch / "baked"
            if home.exists():  # a directory that lacks something
                home.rename(scratch / "old")
            draft.rename(home)
            sync(home.parent)
    made = _open(home, base, layer)
    if made is None:
        raise PiimageError(f"the baked base in `{home}` cannot be read")
    return made


def _bake(  # noqa: PLR0917 -- each is of a type of its own
    base: Base,
    layer: Layer,
    script: bytes,
    packages: tuple[Path, ...],
    engine: Engine,
    scratch: Path,
    cache: Cache,
    progress: Progress,
) -> None:
    draft, inside, log = scratch / "baked", scratch / "engine", scratch / "bake.log"
    draft.mkdir()
    inside.mkdir()
    image = draft / _IMAGE
    facts = base.facts
    root = room.copy_with_room(base, room.needed(layer.packages), image, progress)
    job = Job(
        image=image,
        root=root,
        firmware=_firmware(facts),
        firmware_mount=facts.firmware,
        architecture=facts.architecture,
        script=script,
        packages=packages,
        log=log,
        scratch=inside,
        trusted=base.trusted,
    )
    try:
        engine.run(job, progress)
    except PiimageError as error:
        raise failures.explained(error, log, cache) from error
    labels = contexts(facts)
    if labels is not None:  # nothing labels files where the script runs (see `rpm_script`)
        with progress.step("labelling what the packages brought"):
            labelling.fill_in(image, root, labels.label, progress)
    if root.filesystem is not None and root.filesystem.type in EXT:
        restore_access_times(image, base.path, root.start)
    key = identity(base, layer, script)
    facts = read_facts(image, image_id=key, progress=progress)
    record = {
        "id": key,
        "base": base.id,
        "layer": layer.digest(),
        "engine": engine.name,
        "origin": asdict(Origin.now("baked", f"{base.name} with {len(layer.packages)} packages")),
    }
    image.chmod(0o444)
    sync(image)
    write_bytes(draft / _FACTS, json.dumps(facts.to_json(), sort_keys=True).encode(), mode=0o600)
    write_bytes(draft / _RECORD, json.dumps(record, sort_keys=True).encode())
    shutil.copyfile(log, draft / "bake.log")


def _firmware(facts: Facts) -> Partition | None:
    """The partition whose files the packages may want; None where it is mounted in another one, as on Fedora.

    Nothing there has to do with packages that are baked: the boot loader has its own copies.
    """
    above = [place for place in facts.mounts if facts.firmware.startswith(f"{place}/")]
    return None if set(above) - {"/"} else facts.table.partition(facts.mounts[facts.firmware])


def _open(home: Path, base: Base, layer: Layer) -> Base | None:
    """What lies in a directory of the cache, with facts of this piimage's version; None unless it is whole."""
    image = home / _IMAGE
    if not image.exists():
        return None
    try:
        record = json.loads((home / _RECORD).read_bytes())
        origin = Origin(**record["origin"])
    except _BROKEN:
        return None
    try:
        facts = Facts.from_json(json.loads((home / _FACTS).read_bytes()))
    except _BROKEN:
        facts = read_facts(image, image_id=home.name)
        write_bytes(home / _FACTS, json.dumps(facts.to_json(), sort_keys=True).encode(), mode=0o600)
    return Base(
        name=base.name,
        path=image,
        id=home.name,
        facts=facts,
        origin=origin,
        tools={"engine": record["engine"]},
        lock=layer.digest(),
        trusted=base.trusted,
    )
