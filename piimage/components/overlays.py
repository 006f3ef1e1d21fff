"""Overlays: the user's own files, packages and units, put over what all other components make.

It comes last, so that `replaces:` may take a path over from any of them. Whole files only: what is put together from
several parts, and what stamps fill, cannot be replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from piimage.components import accounts, fstab, slots, units
from piimage.components.contribution import Contribution, Stamp
from piimage.delta import Absent, ClashError, Delta, Directory, File, Slot, Symlink
from piimage.distros.boot_loader import in_force
from piimage.distros.firmware_config import CONFIG, cmdline_path
from piimage.errors import ConfigError, UnsupportedError
from piimage.report import shown
from piimage.spec.templates import TemplateFailedError, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from piimage.cluster import Cluster, Node, Overlay, OverlayFile, Role
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

#: Before the name of an overlay, where it is named as the owner of a path.
OWNER = "overlay "
_KIB = 1024
#: A node's words in a template that goes over the roster.
_LINE = 256


def used(cluster: Cluster, role: Role) -> tuple[Overlay, ...]:
    """The overlays of a role, in their order."""
    known = {overlay.name: overlay for overlay in cluster.overlays}
    return tuple(known[name] for name in role.overlays if name in known)


def paths(cluster: Cluster, role: Role) -> tuple[str, ...]:
    """What the overlays of a role write or remove: facts must know what is there now."""
    return tuple(
        path
        for overlay in used(cluster, role)
        for path in (*(file.path for file in overlay.files), *overlay.removes)
    )


def packages(cluster: Cluster, role: Role) -> tuple[str, ...]:
    """What the overlays want installed."""
    return tuple(name for overlay in used(cluster, role) for name in overlay.packages)


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """Files, links and removals.

    Raises `ConfigError` for a template that fails, `UnsupportedError` for an owner that the base does not have, and
    `ClashError` for a path of two overlays.
    """
    delta = Delta()
    overlays = used(cluster, role)
    _guard_filled(overlays)
    for overlay in overlays:
        context = variant_context(cluster, role, words_of(facts))
        entries: dict[str, Entry] = {
            file.path: _entry(cluster, file, facts, context) for file in overlay.files
        }
        entries |= {path: Absent() for path in overlay.removes}
        mine = Delta.of(f"{OWNER}{overlay.name}", entries)
        delta = delta.merge(mine, replacing=frozenset(overlay.replaces))
    return Contribution(
        delta=delta,
        enable=tuple(name for overlay in overlays for name in overlay.enable),
        disable=tuple(name for overlay in overlays for name in overlay.disable),
        mask=tuple(name for overlay in overlays for name in overlay.mask),
        replaces=frozenset(path for overlay in overlays for path in overlay.replaces),
    )


def _guard_filled(overlays: Iterable[Overlay]) -> None:
    """Raise `ClashError` for two templates that stamps fill: slots may be equal where what they say is not."""
    filled: dict[str, tuple[str, OverlayFile]] = {}
    for overlay in overlays:
        for file in (each for each in overlay.files if each.per_node):
            other, earlier = filled.get(file.path, ("", file))
            if earlier.content != file.content and file.path not in overlay.replaces:
                raise ClashError(
                    f"`{file.path}` is claimed by `{OWNER}{other}` and by `{OWNER}{overlay.name}`",
                    hint="an overlay may say `replaces:` for a path that it takes over",
                )
            filled[file.path] = overlay.name, file


def stamp(cluster: Cluster, node: Node, facts: Facts, _secrets: Secrets) -> Stamp:
    """Templates that are filled for each node; the last overlay that has a path has it."""
    context = node_context(cluster, node, words_of(facts))
    filled: dict[str, bytes] = {}
    for overlay in used(cluster, node.role):
        for file in overlay.files:
            filled.pop(file.path, None)
            if file.per_node:
                filled[file.path] = text(file, context)
    return Stamp(slots=filled)


def text(file: OverlayFile, context: Mapping[str, Any]) -> bytes:
    """What a file or template holds; raises `ConfigError` that names the template's line."""
    if file.kind != "template":
        return file.content
    try:
        return render(file.content, context)
    except TemplateFailedError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(
            f"`{file.source}{line}`: {error.message}",
            hint="`piimage overlay show NAME` lists what a template can use",
        ) from error


def variant_context(cluster: Cluster, role: Role, os: Mapping[str, str]) -> dict[str, Any]:
    """What a template of a variant sees: no secret and no node's identity."""
    return {
        "cluster": {
            "name": cluster.name,
            "domain": cluster.domain,
            "timezone": cluster.timezone,
            "locale": cluster.locale,
            "keymap": cluster.keymap,
            "subnet": str(cluster.subnet),
            "size": len(cluster.nodes),
            "users": [
                {"name": u.name, "uid": u.uid, "gid": u.gid, "group": u.group, "home": u.home}
                for u in cluster.users
            ],
            "shares": [share.path for share in cluster.shares],
            "mpi": {"flavour": cluster.mpi.flavour, "slots": cluster.mpi.slots}
            if cluster.mpi
            else None,
        },
        "role": {
            "name": role.name,
            "head": role.head,
            "target": str(role.target),
            "wifi": role.wifi,
            "packages": list(role.packages),
            "overlays": list(role.overlays),
            "serves": list(role.serves),
        },
        "os": dict(os),
    }


def node_context(cluster: Cluster, node: Node, os: Mapping[str, str]) -> dict[str, Any]:
    """The same, and the node and the roster."""
    return {
        **variant_context(cluster, node.role, os),
        "node": _node(node),
        "nodes": [_node(each) for each in cluster.nodes],
    }


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "number": node.number,
        "address": str(node.address.ip),
        "role": node.role.name,
        "head": node.role.head,
        "mac": node.mac,
        "board": node.board,
    }


def words_of(facts: Facts) -> dict[str, str]:
    """What a template can know of the base."""
    return os_words(
        facts.os.id, facts.os.version_id, facts.os.codename, facts.architecture, facts.firmware
    )


def os_words(
    name: str, version: str, codename: str, architecture: str, firmware: str
) -> dict[str, str]:
    """The same from its parts."""
    return {
        "id": name,
        "version": version,
        "codename": codename,
        "architecture": architecture,
        "firmware": firmware,
    }


def guard(part: Contribution, delta: Delta, facts: Facts) -> None:
    """Raise `ClashError` for a path of an overlay in `part` that no overlay may have; `delta` is what comes before."""
    cure = {
        **dict.fromkeys(
            (cmdline_path(facts), *in_force(facts)), "`cmdline:` of cluster.yaml adds tokens"
        ),
        f"{facts.firmware}/{CONFIG}": "`config_txt:` of cluster.yaml adds lines",
        fstab.PATH: "a unit of systemd (`.mount`) mounts as well",
        units.PRESET: "`enable`, `disable` and `mask` of overlay.yaml are for units",
        **dict.fromkeys(accounts.PATHS, "`users:` of cluster.yaml is for accounts"),
        **dict.fromkeys(delta.slots, "it holds what makes a node that node"),
    }
    for path, owner in part.delta.owners.items():
        if owner.startswith(OWNER) and path in cure:
            raise ClashError(
                f"`{path}` is put together by piimage, so `{owner}` cannot have it", hint=cure[path]
            )


def guard_removed(delta: Delta) -> None:
    """Raise `ClashError` for a directory that an overlay removes and something else is written into."""
    removed = [
        path
        for path, entry in delta
        if isinstance(entry, Absent) and delta.owners[path].startswith(OWNER)
    ]
    for path, entry in delta:
        for gone in removed:
            if path.startswith(f"{gone}/") and not isinstance(entry, Absent):
                raise ClashError(
                    f"`{delta.owners[gone]}` removes `{gone}`, where `{delta.owners[path]}` writes `{path}`",
                    hint="name the files below it that are to go",
                )


def _entry(cluster: Cluster, file: OverlayFile, facts: Facts, context: Mapping[str, Any]) -> Entry:
    uid, gid = _owner(cluster, file, facts)
    firmware = file.path.startswith(f"{facts.firmware}/")
    if firmware and (file.per_node or file.kind == "link"):
        raise ConfigError(
            f"`{file.source}` is for the firmware's partition, which has neither links nor files of a node alone",
            hint="put it elsewhere, or leave out `per_node`",
        )
    if file.per_node:
        need = len(file.content) + _LINE * len(cluster.nodes)
        return Slot(slots.grown(4 * _KIB, need), file.mode, uid, gid)
    if file.kind == "link":
        return Symlink(file.target, uid, gid)
    if file.kind == "dir":
        return Directory(file.mode, uid, gid)
    return File(text(file, context), file.mode, uid, gid)


def _owner(cluster: Cluster, file: OverlayFile, facts: Facts) -> tuple[int, int]:
    """Numbers for names: of the cluster's users, else of the base's accounts."""
    user = next((u for u in cluster.users if file.path.startswith(f"{u.home}/")), None)
    uid, gid = (user.uid, user.gid) if user else (0, 0)
    if file.owner is not None:
        uid, gid = _number(file, file.owner, dict(_accounts(cluster, facts)), "owner")
    if file.group is not None:
        groups = {row[0]: (row[2], row[2]) for row in _rows(facts, "group", 4)}
        groups |= {u.group: (u.gid, u.gid) for u in cluster.users}
        gid, _ = _number(file, file.group, groups, "group")
    return uid, gid


def _accounts(cluster: Cluster, facts: Facts) -> Iterator[tuple[str, tuple[int, int]]]:
    for row in _rows(facts, "passwd", 7):
        yield row[0], (row[2], row[3])
    for user in cluster.users:
        yield user.name, (user.uid, user.gid)


def _rows(facts: Facts, database: str, width: int) -> Iterator[tuple[Any, ...]]:
    """Well-formed rows, with numbers as numbers."""
    for line in facts.text(f"/etc/{database}").splitlines():
        row = line.split(":")
        if len(row) == width and row[2].isdigit() and (width < 7 or row[3].isdigit()):  # noqa: PLR2004 -- passwd(5)
            yield row[0], row[1], int(row[2]), int(row[3]) if row[3].isdigit() else row[3]


def _number(
    file: OverlayFile, name: str, known: Mapping[str, tuple[int, int]], what: str
) -> tuple[int, int]:
    if name not in known:
        raise UnsupportedError(
            f"{what} {shown(name)} of `{file.path}` is neither in cluster.yaml nor in the base",
            hint=f"the overlay is in `{file.source}`",
        )
    return known[name]
