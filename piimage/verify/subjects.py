"""From what the user names to cards: of a build's directory, an image, a stamp, a device; with what is known of it."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from piimage import artifact, imprint, label
from piimage.disk.fat import open_fat
from piimage.disk.intake import import_image
from piimage.disk.streams import image_format
from piimage.disk.table import read_table
from piimage.errors import ImageError, PiimageError
from piimage.stamping import read_stamp
from piimage.verify.catalog import Finding
from piimage.verify.known import Known

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from piimage.disk.slots import Patch
    from piimage.label import CardLabel
    from piimage.progress import Progress
    from piimage.verify.known import Builds
    from piimage.verify.planning import Planning

_STAMPS = "stamps"
#: Changes of a variant that are told; `piimage plan --against` tells all.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Subject:
    """One card to be: `image` raw, `patches` over it, `file` what a checksum may lie beside; `found` so far.

    `image` is None where the file that the manifest names is not there or cannot be unpacked.
    """

    title: str
    file: Path
    image: Path | None
    known: Known
    patches: Sequence[Patch] = ()
    found: tuple[Finding, ...] = ()


@dataclass(slots=True)
class Subjects:
    """Finds them. `scratch` takes images that come packed, one after the other."""

    builds: Builds
    planning: Planning | None
    scratch: Path
    progress: Progress
    _unpacked: Path | None = field(default=None)

    def of_directory(self, nodes: Sequence[str]) -> Iterator[Subject]:
        """Everything that the manifest of the build has, or all of these nodes."""
        directory = self.builds.directory
        assert directory is not None  # noqa: S101 -- the caller has found a manifest in it
        missing = [name for name in nodes if name not in self.builds.nodes]
        if missing:
            raise PiimageError(
                f"`{directory}` has no build of {', '.join(missing)}",
                hint=f"it has {', '.join(self.builds.nodes) or 'none'}",
            )
        if not nodes:
            for name, known in self.builds.manifest.get("variants", {}).items():
                yield self._variant(name, directory / str(known["image"]), str(known["id"]))
        for name, entry in self.builds.nodes.items():
            if nodes and name not in nodes:
                continue
            for kind in ("stamp", *artifact.FORMATS):
                if kind in entry:
                    yield self._of_node(directory, name, kind)

    def of_file(self, path: Path, node: str) -> Subject:
        """An image, a stamp or a device; `node` is whose it should be, if the user has said so."""
        directory = self.builds.directory
        if path.suffix == ".stamp":
            if directory is None:
                raise PiimageError(
                    f"`{path}` is a stamp, and there is no build with its variant",
                    hint="give the build's directory with `--dist`",
                )
            return self._stamp(path, node or path.stem)
        for name, known in self.builds.manifest.get("variants", {}).items():
            if directory is not None and _same(path, directory / str(known["image"])):
                return self._variant(name, path, str(known["id"]))
        stem, kind = path.name.partition(".")[::2]
        entry = self.builds.nodes.get(stem, {})
        own = directory is not None and _same(path, directory / path.name) and kind in entry
        return self._card(path, node or (stem if own else ""), str(entry[kind]) if own else "")

    def _of_node(self, directory: Path, name: str, kind: str) -> Subject:
        if kind == "stamp":
            return self._stamp(directory / _STAMPS / f"{name}.stamp", name)
        path = directory / f"{name}.{kind}"
        return self._card(path, name, str(self.builds.nodes[name][kind]))

    def _variant(self, name: str, path: Path, identity: str) -> Subject:
        known = Known(
            variant=identity,
            census=self.builds.census(identity),
            packages=self.builds.packages(identity),
        )
        image, found = None, _gone(path)
        if path.is_file():
            try:
                image = self._raw(path)
            except (ImageError, PiimageError) as error:
                found = (Finding("PI001", "", error.message),)
        return Subject(f"variant {name}", path, image, _noted(known), (), found)

    def _stamp(self, path: Path, name: str) -> Subject:
        directory = self.builds.directory
        assert directory is not None  # noqa: S101 -- see the callers
        if not path.is_file():
            return Subject(name, path, None, Known(node=name), (), _gone(path))
        stamp = read_stamp(path)
        variants = self.builds.manifest.get("variants", {}).values()
        image = next(
            (directory / str(v["image"]) for v in variants if v["id"] == stamp.variant), None
        )
        if image is None or not image.is_file():
            words = f"the variant {stamp.variant[:12]} of the stamp is not there"
            return Subject(name, path, None, Known(node=name), (), (Finding("PI103", "", words),))
        known, found = self._known(name, stamp.variant, stamp.build)
        if stamp.node != name:
            found += (Finding("PI005", "", f"the stamp is of `{stamp.node}`, not of `{name}`"),)
        return Subject(name, path, image, known, stamp.patches, found)

    def _card(self, path: Path, name: str, build: str) -> Subject:
        """A card whose node is `name` if that is known, and its build too."""
        try:
            image = self._raw(path)
        except (ImageError, PiimageError) as error:
            broken = (Finding("PI001", "", error.message),)
            return Subject(name or path.name, path, None, Known(node=name), (), broken)
        said = _label(image)
        name = name or (said.node if said else self._by_disk_id(image))
        entry = self.builds.nodes.get(name, {})
        variant = str(entry.get("variant", "")) if build else said.variant if said else ""
        known, found = self._known(name, variant, build or (said.build if said else ""))
        if not name:
            found += (Finding("PI005", "", "the card does not say what it is"),)
        return Subject(name or path.name, path, image, known, (), found)

    def _raw(self, path: Path) -> Path:
        """The raw image: the file itself, a device, or what comes out of a packed one."""
        if not path.exists():
            raise ImageError(f"`{path}` is not there")
        if stat.S_ISBLK(path.stat().st_mode) or image_format(path) == "raw":
            return path
        if self._unpacked is not None:
            self._unpacked.unlink()
        self._unpacked = self.scratch / "unpacked.img"
        import_image(path, self._unpacked, progress=self.progress)
        return self._unpacked

    def _by_disk_id(self, image: Path) -> str:
        """The node whose stamp has set this disk's id, or ""."""
        directory = self.builds.directory
        if directory is None:
            return ""
        try:
            disk_id = read_table(image).disk_id
        except ImageError:
            return ""
        for path in sorted((directory / imprint.PROOF).glob("*.json")):
            found = imprint.read(path)
            if found is not None and found.disk_id == disk_id:
                return found.node
        return ""

    def _known(self, name: str, variant: str, build: str) -> tuple[Known, tuple[Finding, ...]]:
        """All there is about a node, and whether its build is the one that would be made now."""
        entry = self.builds.nodes.get(name, {})
        kinds = [str(entry[kind]) for kind in ("stamp", *artifact.FORMATS) if kind in entry]
        mark = self.builds.imprint(name, [build, *kinds])
        planned, reason = self.planning.node(name) if self.planning and name else (None, "")
        variant = mark.variant if mark else variant or str(entry.get("variant", ""))
        variant = variant or (planned.variant_id if planned else "")
        build = mark.build if mark else build
        cluster = (
            self.planning.cluster.name if self.planning else self.builds.manifest.get("cluster", "")
        )
        found: tuple[Finding, ...] = ()
        if planned is not None and planned.variant_id != variant:
            found = (
                Finding("PI006", "", "its variant is another than cluster.yaml would make now"),
            )
            planned = None
        elif planned is not None and planned.stamp is not None and planned.stamp.build != build:
            words = f"its build is {build or 'not known'}, cluster.yaml would make {planned.stamp.build} now"
            found = (Finding("PI006", "", words),)
            planned = replace(planned, stamp=None)
        elif planned is None:
            found = self._changed(name, variant)
        known = Known(
            node=name,
            cluster=str(cluster),
            variant=variant,
            build=build,
            census=self.builds.census(variant),
            imprint=mark,
            planned=planned,
            packages=self.builds.packages(variant),
        )
        return _noted(known, reason), found

    def _changed(self, name: str, variant: str) -> tuple[Finding, ...]:
        """Whether cluster.yaml wants another variant, where its plan is not to be had yet."""
        made = self.builds.made(variant)
        if self.planning is None or made is None:
            return ()
        changed = self.planning.changed(name, made)
        if not changed:
            return ()
        more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        words = f"cluster.yaml would make another now: {', '.join(changed[:_SHOWN])}{more}"
        return (Finding("PI006", "", words),)


def _noted(known: Known, reason: str = "") -> Known:
    """With a sentence for each thing that cannot be compared."""
    notes = []
    if reason:
        notes.append(f"not held against cluster.yaml: {reason}")
    if known.census is None:
        what = "only what the plan writes" if known.planned else "no file"
        notes.append(f"no census of its variant is there: {what} is compared")
    if (
        known.node
        and known.imprint is None
        and (known.planned is None or known.planned.stamp is None)
    ):
        notes.append("neither its imprint nor its state is there: its own files are not compared")
    return replace(known, notes=tuple(notes))


def _gone(path: Path) -> tuple[Finding, ...]:
    return (
        ()
        if path.is_file()
        else (Finding("PI103", "", f"`{path.name}` is in the manifest and not there"),)
    )


def _same(one: Path, two: Path) -> bool:
    return two.exists() and one.exists() and one.samefile(two)


def _label(image: Path) -> CardLabel | None:
    """What a card says of itself; None where it says nothing, or nothing can be read."""
    try:
        for partition in read_table(image).partitions:
            if partition.filesystem is not None and partition.filesystem.type == "vfat":
                with open_fat(image, partition.start) as fat:
                    entry = fat.find(label.NAME)
                    if entry is not None and not entry.directory and entry.size < 1 << 16:
                        return label.decode(fat.content(entry))
    except ImageError:
        pass
    return None
