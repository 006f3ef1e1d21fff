"""Load overlays: directories with files for the root of nodes, and `overlay.yaml` with what git does not keep."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.cluster import Overlay, OverlayFile
from piimage.delta import check_path
from piimage.errors import ConfigError
from piimage.report import Diagnostic, Severity, shown
from piimage.spec import model, source
from piimage.spec.data import data_dirs, is_shipped
from piimage.spec.draft import draft
from piimage.spec.templates import problems

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST, ROOT, TEMPLATE = "overlay.yaml", "rootfs", ".j2"
#: Keeps an empty directory in git, and is not for nodes.
_KEEP = ".gitkeep"
#: All of an overlay is held in memory, and is part of every variant that uses it.
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """An overlay, and where it is from: `shipped` or `beside cluster.yaml`."""

    overlay: Overlay
    description: str
    directory: Path
    origin: str


@dataclass(slots=True)
class Rack:
    """The overlays that a cluster.yaml in `directory` can name, each read at most once.

    What is wrong inside an overlay is collected in `findings`.
    """

    directory: Path
    findings: list[Diagnostic] = field(default_factory=list)
    _cache: dict[str, Loaded | None] = field(default_factory=dict)

    def get(self, name: str) -> Loaded | None:
        """The overlay of that name, or None when there is none or it is not valid."""
        if name not in self._cache:
            place = self._place(name)
            self._cache[name] = self._load(name, place) if place else None
        return self._cache[name]

    def has(self, name: str) -> bool:
        """Whether there is such a directory, valid or not."""
        return self._place(name) is not None

    def names(self) -> list[str]:
        """All names, sorted."""
        places = data_dirs("overlays", self.directory)
        return sorted({p.parent.name for place in places for p in place.glob(f"*/{MANIFEST}")})

    def _place(self, name: str) -> Path | None:
        found = (place / name for place in data_dirs("overlays", self.directory))
        return next((path for path in found if (path / MANIFEST).is_file()), None)

    def _load(self, name: str, place: Path) -> Loaded | None:
        try:
            document = source.read(place / MANIFEST)
        except ConfigError as error:
            self.findings += error.diagnostics
            return None
        result = draft(document, model.Overlay)
        if not isinstance(result.spec, model.Overlay):
            self.findings += result.findings
            return None
        traits = result.spec
        reader = _Reader(place, traits)
        files = tuple(sorted(reader.files(), key=lambda file: file.path))
        written = {file.path for file in files} | set(traits.removes)
        for key, paths in (("files", set(traits.files)), ("replaces", set(traits.replaces))):
            for path in sorted(paths - written):
                where = (key, path) if key == "files" else (key, traits.replaces.index(path))
                message = f"{shown(path)} is not in `{ROOT}/` of this overlay"
                result.error(where, message, None, "overlay-path", key=key == "files")
        self.findings += [*result.findings, *reader.findings]
        overlay = Overlay(
            name=name,
            files=files,
            replaces=tuple(traits.replaces),
            removes=tuple(traits.removes),
            packages=tuple(traits.packages),
            enable=tuple(traits.enable),
            disable=tuple(traits.disable),
            mask=tuple(traits.mask),
        )
        origin = "shipped" if is_shipped(place) else "beside cluster.yaml"
        return Loaded(overlay, traits.description, place, origin)


class _Reader:
    """Walks `rootfs/` of one overlay."""

    def __init__(self, place: Path, traits: model.Overlay) -> None:
        self.root, self.traits = place / ROOT, traits
        self.findings: list[Diagnostic] = []
        self._bytes = 0

    def files(self) -> Iterator[OverlayFile]:
        """Everything that is for nodes; directories only where `files` says something of them."""
        for folder, directories, names in os.walk(self.root):
            directories.sort()
            here = Path(folder)
            links = [name for name in directories if (here / name).is_symlink()]
            for name in sorted((*names, *links)):
                if name != _KEEP:
                    yield from self._file(here / name)
            guest = self._guest(here)
            if guest in self.traits.files:
                yield self._entry(guest, "dir", here, 0o755)

    def _guest(self, path: Path) -> str:
        inner = path.relative_to(self.root)
        return "/" if inner == Path() else f"/{inner}"

    def _file(self, path: Path) -> Iterator[OverlayFile]:
        guest = self._guest(path)
        template = guest.endswith(TEMPLATE)
        guest = guest.removesuffix(TEMPLATE)
        try:
            check_path(guest)
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                yield self._entry(guest, "link", path, 0o777, target=str(path.readlink()))
                return
            content = self._content(path, found)
        except OSError as error:
            self._wrong(path, f"it cannot be read: {(error.strerror or str(error)).lower()}")
            return
        except ValueError as error:
            self._wrong(path, str(error))
            return
        mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        kind = "template" if template else "file"
        entry = self._entry(guest, kind, path, mode, content=content)
        if entry.per_node and not template:
            self._wrong(path, f"`per_node` is for templates, whose names end in `{TEMPLATE}`")
        if b"PRIVATE KEY-----" in content:
            self._wrong(path, "it holds a private key, and anyone may read a variant")
        if template:
            for line, message, hint in problems(content, per_node=entry.per_node):
                self._wrong(path, message, line=line, hint=hint)
        yield entry

    def _content(self, path: Path, found: os.stat_result) -> bytes:
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is neither a file, a link nor a directory")
        self._bytes += found.st_size
        if self._bytes > MAX_BYTES:
            raise ValueError(f"the overlay is larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()

    def _entry(  # noqa: PLR0917 -- each is of a type of its own
        self, guest: str, kind: str, path: Path, mode: int, content: bytes = b"", target: str = ""
    ) -> OverlayFile:
        said = self.traits.files.get(guest) or model.OverlayFile.model_construct()
        return OverlayFile(
            path=guest,
            kind=kind,
            source=str(path),
            content=content,
            target=target,
            mode=int(said.mode, 8) if said.mode else mode,
            owner=said.owner,
            group=said.group,
            per_node=said.per_node,
        )

    def _wrong(
        self, path: Path, message: str, *, line: int | None = None, hint: str | None = None
    ) -> None:
        self.findings.append(
            Diagnostic(
                severity=Severity.ERROR,
                message=message,
                file=str(path),
                line=line,
                hint=hint,
                code="overlay-file",
            )
        )
