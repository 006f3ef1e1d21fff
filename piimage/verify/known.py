"""What is known of a card before it is read: from the build it came out of, from the cache, from cluster.yaml."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage import imprint, variant
from piimage.disk.census import Census
from piimage.errors import ImageError
from piimage.preview import kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from piimage.bases.cache import Cache
    from piimage.imprint import Imprint
    from piimage.plan.plan import StampPlan, VariantPlan
    from piimage.preview.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a build of the node would make now. `stamp` is None where the state's secrets are not at hand."""

    variant: VariantPlan
    variant_id: str
    stamp: StampPlan | None
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that one card can be held against. `node` is "" for a variant; `notes` say what is not known."""

    node: str = ""
    cluster: str = ""
    variant: str = ""
    build: str = ""
    census: Census | None = None
    imprint: Imprint | None = None
    planned: Planned | None = None
    packages: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Builds:
    """The build in `directory`, None if there is none, and the cache behind it; censuses are read once."""

    directory: Path | None
    cache: Cache
    manifest: Mapping[str, Any] = field(init=False)
    _censuses: dict[str, Census | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.manifest = _manifest(self.directory)

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """The manifest's nodes by name."""
        found: Mapping[str, Mapping[str, Any]] = self.manifest.get("nodes", {})
        return found

    def made(self, identity: str) -> Record | None:
        """What the build kept of how it planned a variant: its base and packages among others."""
        there = kept.of_build(self.directory) if self.directory is not None else None
        variants: Iterable[Record] = (there or {}).get("variants", ())
        return next((variant for variant in variants if variant["id"] == identity), None)

    def census(self, identity: str) -> Census | None:
        """The census of a variant, from the build or from the cache."""
        if identity and identity not in self._censuses:
            self._censuses[identity] = self._read(identity)
        return self._censuses.get(identity)

    def _read(self, identity: str) -> Census | None:
        if not identity.isalnum():
            return None
        places = [self.cache.variant_dir(identity) / variant.CENSUS]
        if self.directory is not None:
            places.insert(0, imprint.census_path(self.directory, identity))
        for path in places:
            try:
                return Census.decode(path.read_bytes(), path.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                words = (error.strerror or str(error)).lower()
                raise ImageError(f"cannot read `{path}`: {words}") from error
        return None

    def imprint(self, node: str, builds: Iterable[str]) -> Imprint | None:
        """The imprint of the first of these builds that there is one of."""
        if self.directory is None or not node:
            return None
        for build in builds:
            found = imprint.read(imprint.imprint_path(self.directory, node, build))
            if found is not None:
                return found
        return None

    def packages(self, identity: str) -> Mapping[str, str] | None:
        """Names and versions that the manifest has for a variant."""
        base = next(
            (n.get("base") for n in self.nodes.values() if n.get("variant") == identity), None
        )
        for known in self.manifest.get("bases", {}).values():
            if known.get("id") == base:
                found: Mapping[str, str] | None = known.get("packages")
                return found
        return None


def _manifest(directory: Path | None) -> Mapping[str, Any]:
    if directory is None:
        return {}
    path = directory / "manifest.json"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise ImageError(f"cannot read `{path}`: {words}") from error
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("nodes", {}), dict):
        raise ImageError(f"`{path}` is not the manifest of a build")
    return found
