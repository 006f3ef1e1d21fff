"""MPI: one flavour, on bases that can run one program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.report import shown
from piimage.spec.flavours import kind, lacks, other_flavour
from piimage.spec.seats import traits_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.spec import model
    from piimage.spec.checks.outside import Outside
    from piimage.spec.draft import Draft
    from piimage.spec.place import FieldPath
    from piimage.spec.seats import Seat


def check(draft: Draft, places: Sequence[Seat], outside: Outside) -> None:
    """Add what keeps one MPI program from running on all nodes, as far as it is known."""
    if draft.spec.mpi is None:
        return
    flavour = draft.spec.mpi.flavour
    _packages(draft, flavour)
    used: dict[FieldPath, str] = {}
    for seat in places:
        used.setdefault(_base_path(draft.spec, seat), seat.name)
    known = [(p, name, outside.facts_at[p]) for p, name in used.items() if p in outside.facts_at]
    for _, _, facts in known:
        if lacks(flavour, facts):
            written = "flavour" in draft.spec.mpi.model_fields_set
            where = ("mpi", "flavour") if written else ("mpi",)
            message = f"{facts.os.pretty or facts.os.id} has no Open MPI for {facts.architecture}"
            hint = "write `mpi: {flavour: mpich}`, or take a 64-bit base"
            draft.error(where, message, hint, "no-openmpi", key=not written)
            break
    for path, name, facts in known[1:]:
        _, first, other = known[0]
        if kind(facts) != kind(other):
            message = f"the base of {name} is {kind(facts)}, that of {first} is {kind(other)}"
            hint = "one MPI program cannot run on both; take bases of one release and architecture"
            draft.error((*path, "base") if path else ("mpi",), message, hint, "mixed-mpi")


def _packages(draft: Draft, flavour: str) -> None:
    for path, traits in traits_of(draft.spec):
        for index, name in enumerate(traits.packages):
            other = other_flavour(name, flavour)
            if other is not None:
                message = f"{shown(name)} brings {other} beside `mpi: {{flavour: {flavour}}}`"
                hint = f"programs made for one do not run under the other; `mpi` installs {flavour}"
                draft.error((*path, "packages", index), message, hint, "mixed-mpi")


def _base_path(spec: model.Spec, seat: Seat) -> FieldPath:
    """Whose `base` a node has: its own, its role's or the cluster's. What profiles say is seen at the build."""
    role = spec.roles.get(seat.role)
    if seat.entry is not None and seat.entry.base is not None:
        return seat.path
    if role is not None and role.base is not None:
        return ("roles", seat.role)
    return ()
