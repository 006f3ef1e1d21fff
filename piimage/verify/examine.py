"""One card, image or stamp: opened, held against all that is known of it, and looked at for every known trap."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from piimage import label
from piimage.bases import apart
from piimage.bases.guest_text import dpkg_status
from piimage.bases.layout import (
    find_firmware,
    find_root,
    firmware_mount,
    mount_lines,
    resolve_mounts,
)
from piimage.bases.units import ADMIN, VENDOR, read_units, unit_files
from piimage.disk import census
from piimage.disk.rootfs import open_tree
from piimage.disk.table import read_table
from piimage.errors import ImageError, UnsupportedError
from piimage.facts import FileFact
from piimage.verify import (
    disks,
    promises,
    rules_access,
    rules_boot,
    rules_mounts,
    rules_network,
    rules_seed,
    tools,
)
from piimage.verify.catalog import Finding
from piimage.verify.rules_seed import Who
from piimage.verify.traits import Traits, traits
from piimage.verify.view import Place, View, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from piimage.disk.census import Seen
    from piimage.disk.slots import Patch
    from piimage.facts import PartitionTable
    from piimage.verify.known import Known

_STATUS = "/var/lib/dpkg/status"
#: Where the firmware's partition is mounted, where fstab cannot be asked.
_USUAL = ("/boot/firmware", "/boot")


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found, and what of the card can be compared with others of its cluster."""

    findings: tuple[Finding, ...]
    traits: Traits | None = None


@dataclass(slots=True)
class Shared:
    """What stamps of one variant share: its image is read once."""

    roots: dict[Path, Mapping[str, Seen]] = field(default_factory=dict)
    disks: dict[Path, tuple[Finding, ...]] = field(default_factory=dict)


def examine(
    image: Path, known: Known, patches: Sequence[Patch] = (), shared: Shared | None = None
) -> Examined:
    """All that is wrong with a raw image as `patches` would make it; never raises `ImageError` for the image."""
    shared = shared or Shared()
    try:
        table = read_table(image)
    except ImageError as error:
        return Examined((Finding("PI001", "", error.message),))
    table = replace(table, disk_id=disks.patched_id(patches) or table.disk_id)
    findings = list(disks.table(table, known.census, _disk_id(known)))
    if known.census is not None:
        findings += disks.boot_sector(image, known.census, alone=not findings)
    try:
        place = _place(image, table, known)
        if image not in shared.disks:
            shared.disks[image] = (
                *disks.root(image, table.partition(place.root), known.census),
                *disks.firmware(image, table.partition(place.firmware).start),
                *(
                    finding
                    for number in place.apart.values()
                    for finding in disks.root(image, table.partition(number), None)
                ),
            )
        findings += shared.disks[image]
        start = table.partition(place.root).start
        if known.imprint is not None:
            boot = table.partition(place.firmware)
            findings += disks.strays(image, patches, boot, start, known.imprint.slots)
        root = _root(image, table, place, known, patches, shared)
        with opened(image, table, place, patches, root=root) as view:
            findings += _looked_at(view, known)
            found = traits(view, known.node)
    except (ImageError, UnsupportedError) as error:
        words = {finding.message for finding in findings}
        if error.message not in words:
            findings.append(Finding("PI002", "", error.message))
        return Examined(tuple(dict.fromkeys(findings)))
    return Examined(tuple(sorted(dict.fromkeys(findings))), found)


def _disk_id(known: Known) -> str | None:
    if known.imprint is not None and known.imprint.disk_id is not None:
        return known.imprint.disk_id
    bare = known.census is not None and (known.imprint is not None or not known.node)
    return known.census.table.disk_id if bare and known.census is not None else None


def _root(  # noqa: PLR0917 -- each is of a type of its own
    image: Path,
    table: PartitionTable,
    place: Place,
    known: Known,
    patches: Sequence[Patch],
    shared: Shared,
) -> Mapping[str, Seen]:
    """The root file system; of a stamped variant what is not a slot is known from its first node on."""
    start = table.partition(place.root).start
    if image not in shared.roots:
        shared.roots[image] = census.of_all(image, table, place.root, place.apart)
    found = shared.roots[image]
    if not patches or known.imprint is None:
        return found if not patches else _patched(image, start, found, patches)
    return {**found, **census.at_paths(image, start, known.imprint.slots, patches)}


def _patched(
    image: Path, start: int, found: Mapping[str, Seen], patches: Sequence[Patch]
) -> Mapping[str, Seen]:
    """The same where it is not known which files are slots: those whose sizes a slot may have."""
    likely = [p for p, s in found.items() if s.kind == "file" and s.size and s.size % 4096 == 0]
    return {**found, **census.at_paths(image, start, likely, patches)}


def _place(image: Path, table: PartitionTable, known: Known) -> Place:
    """Where the two file systems lie: as it was built, or found as in any image."""
    if known.census is not None:
        numbers = {p.number for p in table.holders if p.filesystem is not None}
        root, firmware = known.census.numbers
        if {root, firmware} <= numbers:
            return Place(
                root=root,
                firmware=firmware,
                mountpoint=known.census.place,
                apart=known.census.apart,
            )
    holder, boot = find_root(image, table), find_firmware(image, table)
    with open_tree(image, holder.start) as tree:
        text = tree.read_files(["/etc/fstab"], limit=1 << 20).get("/etc/fstab", b"")
        usual = [path for path in _USUAL if tree.list_tree([path], 0)]
        listing = tree.list_tree([ADMIN], 2)
        units = tree.read_files([p for p in listing if p.endswith(".mount")], limit=1 << 20)
    lines = mount_lines(text.decode(errors="surrogateescape"), listing, units)
    try:
        mounts = resolve_mounts(lines, table, holder)
        place = firmware_mount(mounts, boot, lines)
    except (ImageError, UnsupportedError):  # rule PI203 says what is wrong with fstab
        return Place(root=holder.number, firmware=boot.number, mountpoint=(usual or _USUAL)[0])
    beside = apart.places(mounts, place, table)
    return Place(root=holder.number, firmware=boot.number, mountpoint=place, apart=beside)


def _looked_at(view: View, known: Known) -> Iterator[Finding]:
    planned = known.planned
    plan = (planned.variant, planned.stamp) if planned else None
    due = promises.promised(
        known.census, known.imprint, plan, view.place.mountpoint, bare=not known.node
    )
    yield from promises.broken(due, view)
    yield from _card(view, known)
    yield from _packages(view, known)
    yield from _units(view, known)
    for rules in (rules_boot, rules_mounts, rules_access, rules_seed, rules_network):
        for rule in rules.RULES:
            yield from rule(view)
    who = Who(known.node, known.imprint.instance_id if known.imprint else "")
    for of_node in rules_seed.OF_NODE:
        yield from of_node(view, who)
    yield from tools.sudoers(view)
    yield from tools.cloud_config(view)


def _card(view: View, known: Known) -> Iterator[Finding]:
    """PI005: what the card says about itself."""
    if not known.node:
        return
    path = f"{view.place.mountpoint}/{label.NAME}"
    said = label.decode(view.read(path) or b"")
    if said is None:
        yield Finding("PI005", path, "the card does not say what it is")
        return
    for name in ("node", "cluster", "build", "variant"):
        due, there = getattr(known, name), getattr(said, name)
        if due and due != there:
            yield Finding("PI005", path, f"its {name} is `{there}`, not `{due}`")


def _packages(view: View, known: Known) -> Iterator[Finding]:
    """PI107: dpkg's database against the build's list; RPM's is one file, which the census has."""
    due = known.planned.packages if known.planned else known.packages
    if due is None or _STATUS not in view.root:
        return
    found = dpkg_status(view.text(_STATUS)).versions
    for name in sorted(due.keys() | found.keys()):
        one, two = found.get(name), due.get(name)
        if one != two:
            yield Finding(
                "PI107", _STATUS, f"`{name}` is {one or 'missing'}, not {two or 'wanted'}"
            )


def _units(view: View, known: Known) -> Iterator[Finding]:
    """PI108: units that a component cares for."""
    if known.planned is None:
        return
    listing = {
        path: FileFact(kind=s.kind, mode=s.mode, uid=s.uid, gid=s.gid, target=s.target or None)
        for path, s in view.root.items()
        if path.startswith((f"{ADMIN}/", f"{VENDOR}/"))
    }
    contents = {path: view.read(path) or b"" for path in unit_files(listing)}
    units = read_units(listing, contents)
    for name, wish in known.planned.variant.units.items():
        unit = units.get(name)
        if unit is None:
            if wish == "enable":
                yield Finding("PI108", ADMIN, f"`{name}` is not there, and is to be enabled")
        elif wish == "mask" and not unit.masked:
            yield Finding("PI108", ADMIN, f"`{name}` is not masked")
        elif wish != "mask" and unit.enabled != (wish == "enable"):
            state = "enabled" if unit.enabled else "not enabled"
            yield Finding("PI108", ADMIN, f"`{name}` is {state}, and is to be: {wish}")
