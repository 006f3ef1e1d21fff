"""Where a payload comes from: what a build left in `dist/`, or an image file as it came."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from piimage.disk.arriving import Arriving
from piimage.disk.bmap import mapped_ranges
from piimage.disk.intake import import_image
from piimage.disk.sparse import hash_file
from piimage.disk.streams import ACCEPTED, image_format
from piimage.disk.unframed import Framed, open_framed
from piimage.errors import ImageError, PiimageError, VerifyError
from piimage.flash.bmap_file import Bmap, beside
from piimage.flash.built import artifacts, listed, read_manifest
from piimage.flash.grown import grown
from piimage.flash.payload import open_arriving, open_payload
from piimage.flash.ranges import without
from piimage.progress import Progress, Quiet
from piimage.stamping import read_stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from piimage.bases.cache import Cache
    from piimage.flash.payload import Payload
    from piimage.flash.ranges import Range

#: What is unpacked onward.
_ONWARD = ("xz", "gz", "zst", "zip")


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be written: `title` for people, `node` and `build` where it is a node's, `files` it is read from.

    `proof` returns when the image is what its builder wrote, and raises `VerifyError` if it is not; it takes as
    long as reading the image once.
    """

    title: str
    payload: Payload
    files: tuple[Path, ...]
    node: str | None = None
    build: str | None = None
    variant: str | None = None
    proof: Callable[[], None] = field(default=lambda: None, repr=False)


class Sources:
    """Opens sources; images packed otherwise than in frames are unpacked once, into a scratch directory.

    That goes on while they are written, but for those that have to be whole for it.
    """

    def __init__(
        self,
        scratch: Path,
        *,
        full: bool = False,
        grow: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._scratch, self._full, self._progress = scratch, full, progress or Quiet()
        self._grow = grow
        self._raw: dict[Path, Path] = {}
        self._framed: dict[Path, Framed | None] = {}
        self._mapped: dict[Path, list[Range]] = {}
        self._arriving: dict[Path, Arriving] = {}
        self._proofs: dict[Path, Callable[[], None]] = {}
        self._hashing = ThreadPoolExecutor(1, "source")

    def close(self) -> None:
        """Begin no further proofs, and end the unpacking."""
        for image in self._arriving.values():
            image.close()
        self._hashing.shutdown(wait=False, cancel_futures=True)

    def of_node(self, directory: Path, node: str) -> Source:
        """A node's source in the output directory of a build: variant and stamp, or its image; the newest.

        Raises `PiimageError` if it was not built.
        """
        manifest = read_manifest(directory)
        known = manifest["nodes"].get(node, {})
        found = list(artifacts(directory, node, known, manifest["variants"]))
        if not found:
            raise PiimageError(
                f"`{directory}` has no build of {node}",
                hint=f"`piimage build --node {node}` makes one, `piimage build --all` one for each node",
            )
        kind, files = max(found, key=lambda one: one[1][0].stat().st_mtime_ns)
        title = f"{node} of {manifest.get('cluster')}"
        build, variant = str(known[kind]), str(known.get("variant", ""))
        identity = f"{variant} {build}"
        if kind == "stamp":
            stamp = read_stamp(files[0])
            with self._in_frames(files[1]) as framed:
                payload = open_payload(
                    framed or files[1],
                    stamp.patches,
                    mapped=self._mapped.get(files[1]),
                    full=self._full,
                    identity=identity,
                )
            sums = {
                str(v.get("image")): str(v.get("sha256")) for v in manifest["variants"].values()
            }
            proof = self._proof(files[1], sums.get(str(files[1].relative_to(directory))))
        else:
            digest = listed(directory / f"{node}.sha256", files[0].name)
            payload, proof = self._opened(files[0], digest, identity)
        return Source(title, payload, files, node, build, variant, proof)

    def of_file(self, path: Path) -> Source:
        """An image file, raw or packed, with its bmap if that lies beside it.

        The bmap only adds to what is written, and its checksums are held against the image: it may come from
        holes, which say nothing about what a file system has in use. An image in frames has all that a bmap
        says in itself, and takes none.

        Raises `ImageError` for what is no image, a pipe among it: file systems are not read onward.
        """
        if path.exists() and not (path.is_file() or path.is_block_device()):
            what = "a directory" if path.is_dir() else "a pipe or a device without blocks"
            raise ImageError(
                f"`{path}` is {what}; an image is a file: {ACCEPTED}",
                hint="what comes through a pipe has to become a file first, packed if you like",
            )
        with self._in_frames(path) as framed:
            if framed is not None:
                payload = open_payload(framed, mapped=self._mapped[path], full=self._full)
                return Source(path.name, payload, (path,))
        bmap = beside(path)
        if self._can_arrive(path):
            return self._arrives(path, bmap)
        raw, _ = self._unpacked(path, None)
        payload = open_payload(raw, also=bmap.ranges if bmap else (), full=self._full)
        if bmap and bmap.size != payload.size:
            raise _foreign_bmap(bmap, path, payload.size)
        proof = self._checked(raw, bmap) if bmap else lambda: None
        return Source(path.name, payload, (path,), proof=proof)

    def fitted(self, source: Source, size: int) -> Source:
        """The source as a card of `size` bytes gets it: its root grown, if that is wanted (see `grown`)."""
        if not self._grow:
            return source
        with self._progress.step(f"growing the root of {source.title}"):
            return replace(source, payload=grown(source.payload, size, self._scratch))

    def _opened(
        self, path: Path, digest: str | None, identity: str
    ) -> tuple[Payload, Callable[[], None]]:
        """The payload of a node's image, and its proof."""
        with self._in_frames(path) as framed:
            if framed is not None:
                right, mapped = self._proof(path, digest), self._mapped[path]
                return open_payload(
                    framed, mapped=mapped, full=self._full, identity=identity
                ), right
        if self._can_arrive(path):
            image, payload = self._arrive(path, identity=identity)
            right = self._proof(path, digest)

            def proof() -> None:
                image.finish()
                right()

            return payload, proof
        raw, right = self._unpacked(path, digest)
        return open_payload(raw, full=self._full, identity=identity), right

    def _can_arrive(self, path: Path) -> bool:
        """Whether the image can be written while it is unpacked: what lies behind its partitions is not known then."""
        return path.is_file() and not self._full and image_format(path) in _ONWARD

    def _arrives(self, path: Path, bmap: Bmap | None) -> Source:
        """An image that is written while it is unpacked."""
        image, payload = self._arrive(path, bmap)

        def proof() -> None:
            size = image.finish()
            if bmap and bmap.size != size:
                raise _foreign_bmap(bmap, path, size)
            if bmap:
                bmap.check(image.raw)

        return Source(path.name, payload, (path,), proof=proof)

    def _arrive(
        self, path: Path, bmap: Bmap | None = None, *, identity: str = ""
    ) -> tuple[Arriving, Payload]:
        """The image, whose unpacking begins now."""
        with self._progress.step(f"opening {path.name}"):
            if path not in self._arriving:
                raw = self._scratch / f"arriving{len(self._arriving)}.img"
                self._arriving[path] = Arriving(path, raw, at_least=bmap.size if bmap else 0)
            image = self._arriving[path]
            if bmap and bmap.size < image.size:
                raise _foreign_bmap(bmap, path, image.size)
            return image, open_arriving(image, also=bmap.ranges if bmap else (), identity=identity)

    @contextmanager
    def _in_frames(self, path: Path) -> Iterator[Framed | None]:
        """The image, if this file holds one in frames, the same for all its cards.

        It is open until the block ends: the frames that tell of its file systems are unpacked once then.
        """
        if path not in self._framed:
            self._framed[path] = open_framed(path) if path.is_file() else None
        framed = self._framed[path]
        with framed.opened() if framed else nullcontext():
            if framed and path not in self._mapped:
                self._mapped[path] = _complete(framed)
            yield framed

    def _unpacked(self, path: Path, digest: str | None) -> tuple[Path, Callable[[], None]]:
        """The raw image, and its proof: what is packed is checked before it is unpacked."""
        if path in self._raw:
            return self._raw[path], lambda: None
        if not path.is_file() or image_format(path) == "raw":
            return path, self._proof(path, digest)
        raw = self._scratch / f"{len(self._raw)}.img"
        import_image(path, raw, sha256=digest, progress=self._progress)
        self._raw[path] = raw
        return raw, lambda: None

    def _proof(self, path: Path, digest: str | None) -> Callable[[], None]:
        """A proof that is begun now, beside the writing, once for each file."""
        if digest is None:
            return lambda: None
        if path not in self._proofs:
            found = self._hashing.submit(hash_file, path)

            def proof() -> None:
                if found.result() != digest:
                    raise VerifyError(
                        f"`{path}` is not what was built: its sha256 is not {digest}",
                        hint="the disk that it lies on is failing, or somebody changed it: build it again",
                    )

            self._proofs[path] = proof
        return self._proofs[path]

    def _checked(self, raw: Path, bmap: Bmap) -> Callable[[], None]:
        """The bmap's own checksums, begun now."""
        return self._hashing.submit(bmap.check, raw).result


@contextmanager
def open_sources(
    cache: Cache, *, full: bool = False, grow: bool = False, progress: Progress | None = None
) -> Iterator[Sources]:
    """`Sources`, with a scratch directory that is gone afterwards."""
    with cache.scratch() as scratch:
        sources = Sources(scratch, full=full, grow=grow, progress=progress)
        try:
            yield sources
        finally:
            sources.close()


def _foreign_bmap(bmap: Bmap, path: Path, size: int) -> ImageError:
    return ImageError(
        f"`{bmap.name}` is of an image of {bmap.size} bytes, `{path.name}` has {size}",
        hint="it belongs to another image: move it away",
    )


def _complete(framed: Framed) -> list[Range]:
    """What the image's file systems have in use; raises `ImageError` if its index does not name all of it."""
    mapped = mapped_ranges(framed)
    missing = without(mapped, framed.layout.mapped)
    if missing:
        raise ImageError(
            f"the index of `{framed.name}` leaves out what its file systems have in use, from byte {missing[0][0]} on",
            hint="it was made for another image: unpack it with `zstd -d`, and flash that",
        )
    return mapped
