"""The plan: every component run, every shared file rendered once by its owner.

`plan_variant` gives what all nodes of a role share, without a secret and without a node's name, `plan_stamp` what makes
that variant one node. Both are pure.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from piimage import label
from piimage.components import cloudinit, firmware, fstab, labels, overlays, slots, trim, units
from piimage.components.textfile import encode
from piimage.delta import Absent, Delta, Directory
from piimage.distros.boot_loader import in_force
from piimage.distros.firmware_config import cmdline_path, firmware_command_line
from piimage.errors import PiimageError, UnsupportedError
from piimage.label import CardLabel
from piimage.plan.recipe import COMPONENTS, packages_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Check, Contribution, Secrets, Stamp
    from piimage.delta import Slot
    from piimage.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """What a role's image must hold. `cmdline` are the kernel tokens that stamps repeat, `cmdline_drop` those to go.

    `units` says of each unit that a component cares for whether it is to `enable`, `disable` or `mask`.
    """

    role: Role
    delta: Delta
    checks: tuple[Check, ...]
    deferred: tuple[str, ...]
    cmdline: tuple[str, ...]
    cmdline_drop: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> dict[str, Slot]:
        """The paths that every stamp fills."""
        return self.delta.slots

    def digest(self) -> str:
        """SHA-256 (hex) over everything that the image phase writes."""
        inputs: list[object] = [
            self.delta.digest(),
            [],
        ]  # once there were packages: ids stay what they were
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StampPlan:
    """What makes a variant this node.

    `build` is 12 hex digits over all of it; `slots` has every slot of the variant, `firmware` names
    on the FAT.
    """

    node: Node
    build: str
    instance_id: str
    slots: Mapping[str, bytes] = field(repr=False)
    firmware: Mapping[str, bytes]
    checks: tuple[Check, ...]


def plan_variant(cluster: Cluster, role: Role, facts: Facts) -> VariantPlan:
    """The variant of `role`; raises `UnsupportedError` or `ClashError` when it cannot be."""
    parts = [c.image(cluster, role, facts) for c in COMPONENTS]
    return _assembled(cluster, role, facts, parts)


def plan_ahead(cluster: Cluster, role: Role, facts: Facts) -> tuple[VariantPlan, dict[str, str]]:
    """What can be said of the variant of `role` before its packages are installed in the base of `facts`.

    The second part has the components that have to wait for their packages, each with what it lacks. Raises like
    `plan_variant` for what no package would cure.
    """
    parts: list[Contribution] = []
    waiting: dict[str, str] = {}
    for component in COMPONENTS:
        try:
            part = component.image(cluster, role, facts)
            units.entries([part], part.delta, facts)
        except UnsupportedError as error:
            if not packages_of(component, cluster, role, facts):
                raise
            waiting[component.__name__.rpartition(".")[2]] = error.message
        else:
            parts.append(part)
    return _assembled(cluster, role, facts, parts), waiting


def _assembled(
    cluster: Cluster, role: Role, facts: Facts, parts: list[Contribution]
) -> VariantPlan:
    """The parts merged, and what follows from all of them."""
    shared = {**firmware.entries(parts, facts), **fstab.entries(parts, facts)}
    delta = _merged(parts, facts).merge(Delta.of("firmware", shared))
    parts = [*parts, trim.image(delta.slots)]
    delta = delta.merge(parts[-1].delta)
    delta = delta.merge(Delta.of("units", units.entries(parts, delta, facts)))
    overlays.guard_removed(delta)
    delta = delta.merge(Delta.of("plan", _parents(delta, facts, cluster)))
    return VariantPlan(
        role=role,
        delta=labels.labelled(delta, facts),
        checks=tuple(check for part in parts for check in part.checks),
        deferred=tuple(sentence for part in parts for sentence in part.deferred),
        cmdline=firmware.tokens(parts),
        cmdline_drop=firmware.dropped(parts),
        units=units.wishes(parts),
    )


def _merged(parts: Sequence[Contribution], facts: Facts) -> Delta:
    delta = Delta()
    for part in parts:
        overlays.guard(part, delta, facts)
        delta = delta.merge(part.delta, replacing=part.replaces)
    return delta


def _parents(delta: Delta, facts: Facts, cluster: Cluster) -> dict[str, Directory]:
    """Directories that the image lacks and some entry needs, with a mode of our choice; a home's are its user's."""
    homes = {f"{user.home}/": (user.uid, user.gid) for user in cluster.users}
    missing: dict[str, Directory] = {}
    for path, entry in delta:
        if isinstance(entry, Absent):
            continue
        parts = path.split("/")[1:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/" + "/".join(parts[:depth])
            if f"{facts.firmware}/".startswith(f"{parent}/"):
                continue  # the mount point of another file system, and one without modes
            if not facts.has(parent) and parent not in delta.entries:
                owner = next((o for home, o in homes.items() if parent.startswith(home)), (0, 0))
                missing[parent] = Directory(0o755, *owner)
    return missing


def plan_stamp(  # noqa: PLR0917 -- each is of a type of its own
    cluster: Cluster,
    node: Node,
    facts: Facts,
    variant: VariantPlan,
    variant_id: str,
    secrets: Secrets,
) -> StampPlan:
    """The stamp of `node`; raises `PiimageError` when a slot is too small or left empty."""
    stamps: list[Stamp] = [
        c.stamp(cluster, node, facts, secrets) for c in COMPONENTS if hasattr(c, "stamp")
    ]
    own = (*node.cmdline, *(token for stamp in stamps for token in stamp.cmdline))
    filled = _one(stamp.slots for stamp in stamps)
    filled |= firmware.stamped_cmdline(facts, variant.cmdline, own, variant.cmdline_drop)
    filled |= cloudinit.seed(
        _one(stamp.user_data for stamp in stamps), _one(stamp.network for stamp in stamps)
    )
    fat = _one(stamp.firmware for stamp in stamps)
    if own:
        _refuse_own_tokens(node, facts)
        name = cmdline_path(facts).removeprefix(f"{facts.firmware}/")
        fat[name] = _cmdline(facts, variant, own)
    build = _build_id(variant_id, filled, fat)
    instance = cloudinit.instance_id(cluster, node, build)
    filled[slots.META_DATA] = cloudinit.meta_data(node, instance)
    fat[label.NAME] = label.encode(
        CardLabel(
            cluster=cluster.name,
            node=node.name,
            number=node.number,
            build=build,
            variant=variant_id,
        )
    )
    return StampPlan(
        node=node,
        build=build,
        instance_id=instance,
        slots=_fitted(filled, variant),
        firmware=fat,
        checks=tuple(check for stamp in stamps for check in stamp.checks),
    )


def _refuse_own_tokens(node: Node, facts: Facts) -> None:
    """A stamp writes to slots and to the FAT; GRUB's entries are neither."""
    if in_force(facts):
        raise UnsupportedError(
            f"node `{node.name}` asks for kernel tokens of its own, and its base has the command line in the boot"
            " loader's entries, which all nodes of a role share",
            hint="give the tokens to the role",
        )


def _one(parts: Any) -> dict[str, Any]:  # noqa: ANN401 -- mappings of several value types
    """The mappings of all stamps in one; raises `PiimageError` when two disagree about a key."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key in merged and merged[key] != value:
                raise PiimageError(f"two components stamp `{key}` differently")
            merged[key] = value
    return merged


def _cmdline(facts: Facts, variant: VariantPlan, own: Sequence[str]) -> bytes:
    entry = variant.delta.entries.get(cmdline_path(facts))
    content = getattr(entry, "content", None)
    planned = content.decode(errors="surrogateescape") if content is not None else None
    text = firmware_command_line(facts) if planned is None else planned
    return encode(firmware.merge_tokens(text, own))


def _build_id(variant_id: str, filled: Mapping[str, bytes], fat: Mapping[str, bytes]) -> str:
    """12 hex digits over the variant and all that is stamped: other content, other build."""
    hasher = hashlib.sha256(variant_id.encode())
    for name, content in sorted((*filled.items(), *fat.items())):
        hasher.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return hasher.hexdigest()[:12]


def _fitted(filled: Mapping[str, bytes], variant: VariantPlan) -> dict[str, bytes]:
    """Content for exactly the slots of the variant, each no larger than its slot."""
    unfilled, unknown = set(variant.slots) - set(filled), set(filled) - set(variant.slots)
    if unfilled or unknown:
        raise PiimageError(
            f"slots and stamps do not match: {', '.join(sorted(unfilled | unknown))}",
            hint="build the variant anew",
        )
    return {path: slots.fit(path, filled[path], slot) for path, slot in variant.slots.items()}
