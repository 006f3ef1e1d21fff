"""An image of the catalog, or at an address, downloaded and unpacked at once, proved, and imported."""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

from piimage.bases import proof
from piimage.bases.download import Download
from piimage.bases.importing import adopt, check_image, import_base
from piimage.bases.naming import name_after
from piimage.bases.places import Beside, place
from piimage.bases.publishers import Published, Publisher
from piimage.disk.atomic import create, require_space, sync
from piimage.disk.growing import BrokenOffError, StartedOverError, confirmed, follow
from piimage.disk.intake import write_image
from piimage.disk.sparse import hash_file
from piimage.disk.streams import image_format
from piimage.errors import ImageError, PiimageError, VerifyError, WriteFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.bases.places import Place
    from piimage.bases.proof import Proof
    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.progress import Progress

#: Seconds that a download gets to notice that it is to stop; its thread does not keep the process.
_PATIENCE = 2.0
_PLACE = "free some space, or set `PIIMAGE_CACHE` to a directory with some GiB free"


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A whole download: digests of the file, and of the raw image if that was unpacked on the way."""

    sha256: str
    image_id: str | None


def pull(
    name: str,
    image: Published,
    *,
    store: Store,
    progress: Progress,
    place: Place,
    sha256: str | None = None,
    without_signature: bool = False,
) -> Base:
    """The base `name` that a published image becomes, unless it is here already.

    `sha256` is one that the user vouches for. Raises `VerifyError` for what is not proved to be the publisher's,
    `FetchError` when it does not come, `ImageError` or `UnsupportedError` for what cannot be a base, and
    `WriteFailedError` when there is no room. What came is kept for the next time, unless it is wrong.
    """
    with store.in_use(), store.lock(f"pull-{name}"):
        if store.record(name) is not None:
            progress.say(f"base `{name}` is here already")
            return store.base(name)
        directory = store.directory("downloads") / name
        directory.mkdir(mode=0o700, exist_ok=True)
        kept = directory / image.file
        if kept.exists():
            place = Beside(kept, place, prefix=".")
        asked = proof.ask(
            image,
            place,
            directory,
            progress=progress,
            sha256=sha256,
            without_signature=without_signature,
        )
        job = _Job(name, asked, directory, store, progress)
        where = place.image(image.url)
        try:
            base = job.from_web(where) if isinstance(where, str) else job.from_file(where)
        except VerifyError:
            kept.unlink(missing_ok=True)  # else the next time would be no better
            raise
        shutil.rmtree(directory, ignore_errors=True)
        return base


def pull_address(url: str, *, sha256: str, store: Store, progress: Progress) -> Base:
    """The base that the image at `url` becomes, or that a file with that `sha256` became before.

    It is called after the file and its digest. Raises what `pull` does.
    """
    known = store.by_source(sha256)
    if known is not None:
        return known
    image = Published(publisher=Publisher(name="", title=url), url=url, sha256=sha256, pinned=True)
    name = f"{name_after(image.file)}-{sha256[:12]}"
    where = place(os.environ.get("PIIMAGE_MIRROR"), None)
    return pull(name, image, store=store, progress=progress, place=where)


@dataclass(frozen=True, slots=True)
class _Job:
    """One image that becomes the base `name`; `directory` is its own, and private."""

    name: str
    asked: Proof
    directory: Path
    store: Store
    progress: Progress

    def from_file(self, path: Path) -> Base:
        """The base that a file of this machine becomes."""
        digest = hash_file(path, progress=self.progress)
        self.asked.hold(path, digest, self.progress)
        with _refusal(path, self.progress):
            return self._import(path, digest)

    def from_web(self, url: str) -> Base:
        """The base that a download becomes."""
        image, whole = self.asked.image, self.directory / self.asked.image.file
        require_space(self.directory, (image.size or 0) + (image.image_size or 0), hint=_PLACE)
        part = self.directory / ".part"
        with self.store.scratch() as scratch:
            raw = scratch / "image.img"
            fetched = self._fetched(url, part, raw)
            part.replace(whole)
            sync(self.directory)
            _drop(part)
            with _refusal(whole, self.progress):
                if fetched.image_id is None:
                    return self._import(whole, fetched.sha256)
                return adopt(
                    raw,
                    store=self.store,
                    name=self.name,
                    file=image.file,
                    sha256=fetched.sha256,
                    image_id=fetched.image_id,
                )

    def _import(self, path: Path, sha256: str) -> Base:
        return import_base(
            path,
            store=self.store,
            progress=self.progress,
            name=self.name,
            sha256=sha256,
            image_sha256=self.asked.image.image_sha256,
        )

    def _fetched(self, url: str, part: Path, raw: Path) -> _Fetched:
        """A proved download; one that was put together and is wrong is fetched once more, whole."""
        fetch = _Fetch(url, part, raw, self.asked, self.progress)
        try:
            return self._proved(fetch, part)
        except (VerifyError, ImageError):
            _drop(part)
            if not fetch.spliced:
                raise
        self.progress.warn("what came in pieces does not fit together: it is fetched again, whole")
        try:
            return self._proved(fetch, part)
        except (VerifyError, ImageError):
            _drop(part)
            raise

    def _proved(self, fetch: _Fetch, part: Path) -> _Fetched:
        fetched = fetch.run()
        self.asked.hold(part, fetched.sha256, self.progress)
        if fetched.image_id is not None:
            check_image(self.asked.image.file, fetched.image_id, self.asked.image.image_sha256)
        return fetched


class _Fetch:
    """One download into `part`, unpacked to `raw` while it comes."""

    def __init__(self, url: str, part: Path, raw: Path, asked: Proof, progress: Progress) -> None:
        self._url, self._part, self._raw = url, part, raw
        self._asked, self._progress = asked, progress
        self.spliced = False

    def run(self) -> _Fetched:
        """Both; raises what stops either."""
        image = self._asked.image
        self._part.touch(mode=0o600)
        with self._progress.step(f"downloading {image.file}") as task:
            download = Download(self._url, self._part, task=task, size=image.size)
            thread = Thread(target=download.run, daemon=True)
            thread.start()
            image_id = None
            try:
                image_id = self._unpack(download)
            except BrokenOffError:
                pass  # the download knows why
            except ImageError:
                if download.growth.ended:
                    self._asked.digest(download.sha256)  # the better reason
                raise
            finally:
                if not download.growth.ended:
                    download.stop()
                thread.join(_PATIENCE)
                self.spliced = download.spliced
            if download.error is not None:
                raise download.error
            return _Fetched(download.sha256, image_id)

    def _unpack(self, download: Download) -> str | None:
        """The raw image's digest; None if it can be unpacked only once it is whole."""
        while True:
            try:
                return self._unpack_once(download)
            except StartedOverError:
                continue

    def _unpack_once(self, download: Download) -> str | None:
        name, growth = self._asked.image.file, download.growth
        number = growth.round
        create(self._raw, 0o600)
        hasher, crc = hashlib.sha256(), 0

        def each(chunk: bytes) -> None:
            nonlocal crc
            hasher.update(chunk)
            crc = zlib.crc32(chunk, crc)

        with follow(self._part, growth, name) as stream:
            try:
                size = None if stream is None else write_image(stream, self._raw, name, each=each)
                growth.wait(number)
            except StartedOverError:
                raise
            except BaseException:
                download.stop()
                growth.end(failed=True)  # first: closing the stream waits for what feeds it
                raise
        if size is None:
            return None
        if image_format(self._part) == "zip" and not confirmed(self._part, size, crc):
            return None
        return hasher.hexdigest()


@contextmanager
def _refusal(path: Path, progress: Progress) -> Iterator[None]:
    """Say that a proved image stays where it is when it cannot become a base."""
    try:
        yield
    except (WriteFailedError, VerifyError):
        raise
    except PiimageError:
        progress.say(f"the image is what its publisher says, and is kept: `{path}`")
        raise


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)
