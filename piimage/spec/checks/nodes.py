"""Nodes: one head, names, MACs, boards, roles and profiles that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.report import shown
from piimage.spec import fields, model
from piimage.spec.profiles import BOARD, ROLE, split, suggestion
from piimage.spec.seats import HEAD, WORKER, traits_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.spec.draft import Draft
    from piimage.spec.place import FieldPath
    from piimage.spec.profiles import Shelf
    from piimage.spec.seats import Seat


def check(draft: Draft, places: Sequence[Seat], shelf: Shelf) -> None:
    """Add what is wrong with the nodes and the roles and profiles they name."""
    _heads(draft, places)
    _names(draft, places)
    _macs(draft, places)
    _boards(draft, places, shelf)
    _roles(draft, places, shelf)
    _profiles(draft, shelf)
    _wifi(draft)


def _heads(draft: Draft, places: Sequence[Seat]) -> None:
    if not draft.whole("nodes"):
        return
    form = draft.spec.nodes
    if isinstance(form, model.NodeCount):
        if form.head >= form.count:
            message = f"there is no node {form.head}: {form.count} nodes have the numbers 0 to"
            draft.error(("nodes", "head"), f"{message} {form.count - 1}", code="no-head")
        return
    heads = [seat for seat in places if seat.role == HEAD]
    if not heads:
        hint = "give one node `role: head`; it serves time, shares and logins"
        draft.error(("nodes",), "no node has the role `head`", hint, "no-head", key=True)
    for seat in heads[1:]:
        message = f"a second head: {shown(heads[0].name)} is the head already"
        hint = f"a cluster has one; {_line(draft, heads[0].where('role'))}"
        draft.error(seat.where("role"), message, hint, "two-heads")


def _names(draft: Draft, places: Sequence[Seat]) -> None:
    form = draft.spec.nodes
    if isinstance(form, model.NodeCount):
        if form.count > 1 and form.name == places[1].name:
            hint = f"did you mean {shown(form.name + '{n}')}?"
            message = f"{shown(form.name)} gives every node the same name"
            draft.error(("nodes", "name"), message, hint, "duplicate-name")
            return
        try:
            for seat in places:
                fields.hostname(seat.name)
        except ValueError as error:
            words = getattr(error, "context", None) or {}
            path: FieldPath = ("nodes", "name")
            draft.error(path, words["message"], words["hint"], "hostname")
        return
    first: dict[str, Seat] = {}
    for seat in places:
        other = first.setdefault(seat.name, seat)
        if other is not seat:
            message = f"{shown(seat.name)} is the name of two nodes"
            draft.error(
                seat.where("name"), message, _line(draft, other.where("name")), "duplicate-name"
            )


def _macs(draft: Draft, places: Sequence[Seat]) -> None:
    first: dict[str, Seat] = {}
    for seat in places:
        mac = seat.entry.mac if seat.entry else None
        if mac is None:
            continue
        other = first.setdefault(mac, seat)
        if other is not seat:
            message = f"`{mac}` is the MAC address of {shown(other.name)} already"
            draft.error(
                seat.where("mac"), message, _line(draft, other.where("mac")), "duplicate-mac"
            )


def _line(draft: Draft, path: FieldPath) -> str:
    """Where else to look."""
    span = draft.document.span(draft.origin(path))
    return f"the other one stands on line {span.line + 1}"


def _boards(draft: Draft, places: Sequence[Seat], shelf: Shelf) -> None:
    told: set[FieldPath] = set()
    for seat in places:
        path = (*seat.path, "board")
        if seat.board is None or path in told or shelf.has(BOARD, seat.board):
            continue
        told.add(path)
        hint = suggestion(seat.board, shelf.names(BOARD), "known boards")
        draft.error(path, f"{shown(seat.board)} is no known board", hint, "unknown-board")


def _roles(draft: Draft, places: Sequence[Seat], shelf: Shelf) -> None:
    known = sorted({HEAD, WORKER, *draft.spec.roles, *shelf.names(ROLE)})
    for seat in places:
        if seat.role not in known:
            hint = suggestion(seat.role, known, "known roles")
            draft.error(seat.where("role"), f"{shown(seat.role)} is no role", hint, "unknown-role")
    used = {seat.role for seat in places}
    for name in draft.spec.roles:
        if name not in used | {HEAD, WORKER} and draft.whole("nodes"):
            hint = suggestion(name, sorted(used), "roles in use")
            draft.warning(
                ("roles", name), f"no node has the role {shown(name)}", hint, "unused", key=True
            )


def _profiles(draft: Draft, shelf: Shelf) -> None:
    for path, traits in traits_of(draft.spec):
        for index, name in enumerate(traits.profiles):
            kind, bare = split(name)
            if not shelf.has(kind, bare):
                hint = suggestion(bare, shelf.names(kind), "known profiles")
                where = (*path, "profiles", index)
                draft.error(where, f"there is no profile `{kind}/{bare}`", hint, "unknown-profile")


def _wifi(draft: Draft) -> None:
    if draft.spec.network.wifi is not None or not draft.whole("network"):
        return
    for path, traits in traits_of(draft.spec):
        if isinstance(traits, model.Traits) and traits.wifi:
            hint = "add `network.wifi` with `ssid`, `psk` and `country`"
            draft.error(
                (*path, "wifi"),
                "Wi-Fi is wanted here, but no access point is given",
                hint,
                "no-wifi",
            )
