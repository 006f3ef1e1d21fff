"""Import: an image from outside becomes a base, once."""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256 as sha256_of
from typing import TYPE_CHECKING

from piimage import __version__
from piimage.bases.cache import check_name
from piimage.bases.naming import name_after, stem
from piimage.bases.record import Origin
from piimage.disk.atomic import write_bytes
from piimage.disk.intake import import_image
from piimage.disk.sparse import hash_file
from piimage.disk.table import read_table
from piimage.errors import ImageError, PiimageError, VerifyError

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.progress import Progress


def import_base(
    path: Path,
    *,
    store: Store,
    progress: Progress,
    name: str | None = None,
    sha256: str | None = None,
    image_sha256: str | None = None,
    by_digest: bool = False,
) -> Base:
    """The base that the image file at `path` is, imported unless it is here already.

    `name` is what it shall be called: by default after the file, with `by_digest` after its
    content, or what it is called already. `sha256` is of the file as it is, `image_sha256` of the raw image in
    it. Raises `ImageError` or
    `UnsupportedError` for what cannot be a base, `VerifyError` for another digest, `PiimageError`
    when the name is another image's.
    """
    if not path.exists():
        raise ImageError(f"there is no file `{path}`")
    if name is not None:
        check_name(name)  # before minutes of unpacking
    wanted = name if name is not None or by_digest else name_of(path)
    known = _known(path, store, wanted, sha256)
    if known is not None:
        return known
    with store.lock("import"), store.scratch() as scratch:
        known = _known(path, store, wanted, sha256)  # another process may have been at it
        if known is not None:
            return known
        raw = scratch / f"{stem(path.name)}.img"
        came = import_image(path, raw, sha256=sha256, progress=progress)
        image_id = hash_file(raw, progress=progress)
        check_image(path.name, image_id, image_sha256)
        base = _present(store, image_id, wanted)
        if base is None:
            origin = Origin.now("imported", path.name, sha256=came.source_sha256)
            base = store.publish(
                wanted or f"image-{image_id[:12]}",
                raw,
                origin=origin,
                image_id=image_id,
                tools={"piimage": __version__},
            )
        _remember(path, store, image_id, came.source_sha256)
    return base


def adopt(raw: Path, *, store: Store, name: str, file: str, sha256: str, image_id: str) -> Base:
    """The base `name` that the raw image in a scratch directory of the store becomes, which moves.

    It came in the file called `file` with that `sha256`; `image_id` is the raw image's own. Raises what
    `import_base` does.
    """
    with store.lock("import"):
        base = _present(store, image_id, name)
        if base is not None:
            return base
        try:
            read_table(raw)
        except ImageError as error:
            raise ImageError(error.message.replace(raw.name, file), hint=error.hint) from error
        origin = Origin.now("imported", file, sha256=sha256)
        return store.publish(
            name, raw, origin=origin, image_id=image_id, tools={"piimage": __version__}
        )


def check_image(file: str, found: str, wanted: str | None) -> None:
    """Raise `VerifyError` unless the raw image in `file` has the digest that is wanted, if any is."""
    if wanted not in {None, found}:
        raise VerifyError(
            f"the image in `{file}` has sha256 {found}, expected {wanted}",
            hint="the publisher packed something else than it says: do not use it",
        )


def name_of(path: Path) -> str:
    """A base's name after its file: `2025-10-01-lite.img.xz` is `2025-10-01-lite`."""
    return name_after(path.name)


def _present(store: Store, image_id: str, wanted: str | None) -> Base | None:
    """The base that is this image under the wanted name, or under any when none is wanted."""
    if wanted is None:
        return store.by_id(image_id)
    record = store.record(wanted)
    if record is None:
        return None
    if record.id != image_id:
        raise PiimageError(
            f"base `{wanted}` is another image: {record.origin.kind} from `{record.origin.source}`",
            hint="choose another name with `--name`",
        )
    return store.base(wanted)


def _known(path: Path, store: Store, wanted: str | None, sha256: str | None) -> Base | None:
    """The base that this very file became earlier, as far as its size and times can tell."""
    note = _note(path, store)
    with suppress(OSError, ValueError, KeyError, TypeError):
        data = json.loads(note.read_bytes())
        if data["stamp"] == _stamp(path) and sha256 in (None, data["sha256"]):
            return _present(store, str(data["id"]), wanted)
    return None


def _remember(path: Path, store: Store, image_id: str, source_sha256: str) -> None:
    data = {"stamp": _stamp(path), "id": image_id, "sha256": source_sha256}
    write_bytes(_note(path, store), json.dumps(data).encode(), mode=0o600)


def _note(path: Path, store: Store) -> Path:
    key = sha256_of(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()
    return store.directory("imports") / f"{key}.json"


def _stamp(path: Path) -> list[int]:
    """Changes whenever the file does, short of someone setting its clock back."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
