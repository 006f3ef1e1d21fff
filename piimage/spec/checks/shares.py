"""Shares: a server that exists, paths that do not cover the system or each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.report import shown
from piimage.spec.profiles import suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.spec.draft import Draft
    from piimage.spec.place import FieldPath
    from piimage.spec.seats import Seat

#: No mount may hide what is below these (FHS 3.0); /home, /srv, /mnt, /media, /opt hold data.
_SYSTEM = frozenset(
    "bin boot dev etc lib lib32 lib64 libx32 lost+found proc root run sbin sys tmp usr var".split()
)
#: A unit's name has 255 characters at most (systemd.unit(5)), with `.automount` and without the first `/`.
_MAX_PATH = 246


def check(draft: Draft, places: Sequence[Seat]) -> None:
    """Add what is wrong with the shares."""
    homes = {user.home or f"/home/{user.name}": user.name for user in draft.spec.users}
    users = {user.name for user in draft.spec.users}
    seen: list[tuple[int, str]] = []
    for number, share in enumerate(draft.spec.shares):
        path: FieldPath = ("shares", number)
        _place(draft, (*path, "path"), share.path, homes)
        _overlap(draft, (*path, "path"), share.path, seen)
        seen.append((number, share.path))
        _server(draft, (*path, "server"), share.server, places)
        if share.owner not in {None, "root", *users} and draft.whole("users"):
            hint = suggestion(str(share.owner), sorted(users), "users")
            message = f"{shown(share.owner)} is no user of this cluster"
            draft.error((*path, "owner"), message, hint, "unknown-user")


def _overlap(draft: Draft, where: FieldPath, path: str, seen: list[tuple[int, str]]) -> None:
    for other, taken in seen:
        if _inside(path, taken) or _inside(taken, path):
            line = draft.document.span(draft.origin(("shares", other, "path"))).line + 1
            words = "is given twice" if taken == path else f"and {shown(taken)} overlap"
            hint = f"the other one stands on line {line}"
            draft.error(where, f"{shown(path)} {words}", hint, "duplicate-share")
            return


def _inside(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent + "/")


def _place(draft: Draft, where: FieldPath, path: str, homes: dict[str, str]) -> None:
    if len(path) + 3 * sum(map(path.count, "-+@")) > _MAX_PATH:
        message = f"{shown(path)} is too long: systemd names a mount after its path"
        hint = f"up to {_MAX_PATH} characters, of which `-`, `+` and `@` count four times"
        draft.error(where, message, hint, "long-path")
    if path.split("/")[1] in _SYSTEM:
        message = f"{shown(path)} lies in a system directory, which a mount would hide"
        draft.error(where, message, "for example `/srv/cluster`", "system-path")
    elif path == "/home":
        message = "`/home` holds the users' own files, which a mount would hide"
        draft.error(where, message, "for example `/srv/cluster`", "system-path")
    for home, name in homes.items():
        if _inside(home, path):
            message = f"{shown(path)} would hide the home directory of {shown(name)}"
            draft.error(
                where, message, "share a directory below it, or `/srv/cluster`", "home-path"
            )


def _server(draft: Draft, where: FieldPath, server: str, places: Sequence[Seat]) -> None:
    if not draft.whole("nodes") or any(seat.name == server for seat in places):
        return
    having = [seat.name for seat in places if seat.role == server]
    if not having:
        known = sorted({seat.name for seat in places} | {"head"})
        message = f"{shown(server)} is neither a node nor a role"
        hint = suggestion(server, known[:12], "for example")
        draft.error(where, message, hint, "unknown-server")
    elif len(having) > 1:
        message = f"{shown(server)} is the role of {len(having)} nodes, but a share has one server"
        draft.error(where, message, f"name the node, such as {shown(having[0])}", "many-servers")
