"""The store: bases that were made or imported, each in a directory that appears by one rename.

`bases/NAME/` holds `image.img` (0444), `base.json` (its `Record`) and `facts.json`; nothing in it
is trusted that the image does not confirm: facts of another piimage are read again, and an image
that was touched since is hashed again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piimage.bases.cache import Cache, check_name
from piimage.bases.catalog import cure
from piimage.bases.facts_reader import read_facts
from piimage.bases.record import Base, Origin, Record
from piimage.disk.atomic import write_bytes, write_errors
from piimage.disk.sparse import hash_file
from piimage.errors import ImageError, PiimageError
from piimage.facts import Facts
from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE, RECORD, FACTS = "image.img", "base.json", "facts.json"
_SUFFIXES = (".img", ".xz", ".gz", ".zst", ".zip", ".qcow2")
_BROKEN = (ValueError, KeyError, TypeError, AttributeError)


class Store(Cache):
    """The cache, and the bases in it."""

    def base(
        self,
        name_or_path: str | Path,
        *,
        directory: Path | None = None,
        sha256: str | None = None,
    ) -> Base:
        """The base of that name; with a `/` or an image's suffix a file, imported when first used.

        An address, which needs `sha256`, is downloaded when first used. Relative paths start in `directory`
        (default: the working directory); `sha256` is of the file as it is published. Raises `PiimageError` with
        the command that would bring a name in, and what `importing.import_base` and `pull.pull_address` raise.
        """
        # importing.py and pull.py build on this module
        if "://" in str(name_or_path):
            if sha256 is None:
                raise PiimageError(
                    f"{shown(name_or_path)} needs the digest of the file there",
                    hint="in cluster.yaml: `base: {url: ..., sha256: ...}`",
                )
            from piimage.bases.pull import pull_address  # noqa: PLC0415 -- see above

            return pull_address(
                str(name_or_path), sha256=sha256, store=self, progress=self._progress
            )
        if is_path(name_or_path):
            from piimage.bases.importing import import_base  # noqa: PLC0415 -- see above

            path = (directory or Path()) / Path(name_or_path).expanduser()
            return import_base(
                path, store=self, progress=self._progress, sha256=sha256, by_digest=True
            )
        name = check_name(str(name_or_path))
        record = self.record(name)
        if record is None:
            present = [found.name for found in self.records()]
            raise PiimageError(f"base `{name}` is not here", hint=cure(name, present))
        return self._open(record)

    def record(self, name: str) -> Record | None:
        """What is known of the base of that name, or None when it is not here."""
        path = self._home(name) / RECORD
        try:
            return Record.from_json(json.loads(path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise _foreign(path) from error
        except (OSError, *_BROKEN) as error:
            raise ImageError(
                f"the record of base `{name}` cannot be read", hint=f"remove `{path.parent}`"
            ) from error

    def records(self) -> list[Record]:
        """All bases that are here, by name."""
        parent = self.root / "bases"
        try:
            names = sorted(path.name for path in parent.iterdir() if (path / RECORD).exists())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            raise _foreign(parent) from error
        return [record for record in map(self.record, names) if record is not None]

    def by_source(self, sha256: str) -> Base | None:
        """A base that was taken in from a file with that digest, or that is such a file, or None."""
        for record in self.records():
            if sha256 in (record.origin.sha256, record.id):
                return self._open(record)
        return None

    def by_id(self, image_id: str) -> Base | None:
        """A base with that raw image, or None."""
        for record in self.records():
            if record.id == image_id:
                return self._open(record)
        return None

    def publish(
        self,
        name: str,
        image: Path,
        *,
        origin: Origin,
        image_id: str | None = None,
        tools: Mapping[str, str] | None = None,
    ) -> Base:
        """Make the raw `image` the base of that name; it lies in a `scratch()` of ours and moves.

        A base that had the name goes away. `image_id` saves hashing when it is known. Raises what
        `read_facts` raises, and then changes nothing.
        """
        check_name(name)
        image_id = image_id or hash_file(image, progress=self._progress)
        facts = read_facts(image, image_id=image_id, progress=self._progress)
        bases = self.directory("bases")
        with self.scratch() as scratch, write_errors(bases / name):
            home = scratch / name
            home.mkdir(mode=0o755)
            image.chmod(0o444)
            image.rename(home / IMAGE)
            _sync(home / IMAGE)
            found = (home / IMAGE).stat()
            record = Record(
                name=name,
                id=image_id,
                size=found.st_size,
                mtime_ns=found.st_mtime_ns,
                origin=origin,
                tools=dict(tools or {}),
            )
            _write(home / FACTS, facts.to_json())
            _write(home / RECORD, record.to_json())
            with self.lock("bases"):
                if (bases / name).exists():
                    (bases / name).rename(scratch / "old")
                home.rename(bases / name)
            _sync(bases)
        return self._base(record, facts)

    def remove(self, name: str) -> Record:
        """Take a base away, once nobody uses the cache; raises `PiimageError` when it is not here."""
        record = self.record(name)
        if record is None:
            present = ", ".join(f"`{found.name}`" for found in self.records())
            raise PiimageError(
                f"base `{name}` is not here", hint=f"these are: {present}" if present else None
            )
        # Another process may have been quicker.
        with self.idle(), self.scratch() as gone, self.lock("bases"), suppress(FileNotFoundError):
            self._home(name).rename(gone / name)
        return record

    def _open(self, record: Record) -> Base:
        """The base of a record, with facts of this piimage's version."""
        record = self._checked(record)
        path = self._home(record.name) / FACTS
        try:
            facts = Facts.from_json(json.loads(path.read_bytes()))
            if facts.image_id == record.id:
                return self._base(record, facts)
        except (OSError, *_BROKEN):
            pass  # of another version, or damaged: the image itself knows better
        image = path.with_name(IMAGE)
        facts = read_facts(image, image_id=record.id, progress=self._progress)
        _write(path, facts.to_json())
        return self._base(record, facts)

    def _checked(self, record: Record) -> Record:
        """The record if the image is still what it was; raises `ImageError` if it is not."""
        path = self._home(record.name) / IMAGE
        again = f"remove `{path.parent}`, then make or import it again"
        try:
            found = path.stat()
        except OSError as error:
            raise ImageError(f"base `{record.name}` has lost its image", hint=again) from error
        if (found.st_size, found.st_mtime_ns) == (record.size, record.mtime_ns):
            return record
        # A copied cache has other times and the same bytes.
        if hash_file(path, progress=self._progress) != record.id:
            raise ImageError(f"the image of base `{record.name}` was changed", hint=again)
        record = replace(record, mtime_ns=found.st_mtime_ns)
        _write(path.with_name(RECORD), record.to_json())
        return record

    def _base(self, record: Record, facts: Facts) -> Base:
        return Base(
            name=record.name,
            path=self._home(record.name) / IMAGE,
            id=record.id,
            facts=facts,
            origin=record.origin,
            tools=record.tools,
            trusted=record.origin.kind == "made",
        )

    def _home(self, name: str) -> Path:
        return self.root / "bases" / check_name(name)


def _foreign(path: Path) -> PiimageError:
    return PiimageError(
        f"cannot read `{path}`: permission denied",
        hint="the cache is another user's; set `PIIMAGE_CACHE` to one of your own",
    )


def is_path(name_or_path: str | Path) -> bool:
    """Whether `base:` means a file rather than a name of the catalog."""
    text = str(name_or_path)
    return isinstance(name_or_path, Path) or "/" in text or text.lower().endswith(_SUFFIXES)


def _write(path: Path, data: dict[str, Any]) -> None:
    write_bytes(path, json.dumps(data, sort_keys=True).encode(), mode=0o600)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
