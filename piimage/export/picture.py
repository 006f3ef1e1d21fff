"""A picture of the cluster: its nodes, what they are, their addresses, the wire, the Wi-Fi and the shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.export import drawing as draw

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node

_MARGIN, _GAP = 28, 22
_BOX_WIDTH, _BOX_HEIGHT = 172, 118
#: From a row's wire down to its boxes, and what a row takes in all.
_DROP = 26
_ROW = _BOX_HEIGHT + _DROP + 30
_TITLE = 66
_SKY = 86
_MOST_COLUMNS = 8
_NAME, _LINE = 16, 23
_INK, _QUIET, _WIRE, _RADIO = "#1f2933", "#52606d", "#486581", "#0b7285"
#: Fill and edge of head, workers, and other roles in turn.
_HEAD = ("#fff3d6", "#c27803")
_ROLES = (
    ("#e3f0ff", "#2f6fb2"),
    ("#e6f6ea", "#2b8a4b"),
    ("#f3e8ff", "#7b46b8"),
    ("#ffe8ec", "#b83253"),
)


def svg(cluster: Cluster) -> str:
    """An SVG file; as wide as up to eight nodes side by side."""
    plan = _Plan(cluster)
    title = f"Cluster {cluster.name}"
    parts = [
        draw.text(_MARGIN, 38, cluster.name, size=24, fill=_INK, bold=True),
        draw.text(_MARGIN, 58, _summary(cluster), fill=_QUIET),
        _sky(plan),
        _wire(plan),
        *(_node(plan, node) for node in cluster.nodes),
        _legend(plan),
    ]
    return draw.document(plan.width, plan.height, title, "".join(parts))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where everything is."""

    cluster: Cluster

    @property
    def columns(self) -> int:
        count = len(self.cluster.nodes)
        return (
            count
            if count <= _MOST_COLUMNS - 2
            else min(_MOST_COLUMNS, math.ceil(math.sqrt(count * 2)))
        )

    @property
    def rows(self) -> int:
        return math.ceil(len(self.cluster.nodes) / self.columns)

    @property
    def width(self) -> int:
        columns = max(self.columns, 4)  # room for words beside few nodes
        return 2 * _MARGIN + columns * (_BOX_WIDTH + _GAP) - _GAP

    @property
    def top(self) -> int:
        """Where the first row's wire is."""
        return _TITLE + (_SKY if self.cluster.wifi else 14)

    @property
    def legend(self) -> int:
        return self.top + self.rows * _ROW

    @property
    def height(self) -> int:
        return self.legend + 22 * len(_notes(self.cluster)) + 14

    def corner(self, node: Node) -> tuple[int, int]:
        """The upper left corner of a node's box."""
        row, column = divmod(self.cluster.nodes.index(node), self.columns)
        return _MARGIN + column * (_BOX_WIDTH + _GAP), self.top + row * _ROW + _DROP


def _summary(cluster: Cluster) -> str:
    count = len(cluster.nodes)
    words = [f"{count} node{'s' * (count != 1)}", f"wire {cluster.subnet}"]
    if cluster.mpi:
        name = {"openmpi": "Open MPI", "mpich": "MPICH"}.get(
            cluster.mpi.flavour, cluster.mpi.flavour
        )
        words.append(f"{name}, {cluster.mpi.slots} rank{'s' * (cluster.mpi.slots != 1)} a node")
    return "  \N{MIDDLE DOT}  ".join(words)


def _sky(plan: _Plan) -> str:
    """The access point, and its way to the head if that has Wi-Fi."""
    wifi = plan.cluster.wifi
    if wifi is None:
        return ""
    head = plan.cluster.head
    left, _ = plan.corner(head)
    x = min(left, plan.width - _MARGIN - _BOX_WIDTH - 60)
    y = _TITLE + 14
    words = f"Wi-Fi {draw.shortened(wifi.ssid, 18)} ({wifi.country})"
    parts = [
        draw.box(x, y, _BOX_WIDTH + 60, 36, fill="#e6fafb", stroke=_RADIO, dashed=True),
        draw.waves(x + 24, y + 25, stroke=_RADIO),
        draw.text(x + 46, y + 23, words, fill=_RADIO),
    ]
    if head.role.wifi:
        _, top = plan.corner(head)
        parts.append(
            draw.line(left + 24, y + 36, left + 24, top, stroke=_RADIO, width=1.5, dashed=True)
        )
    return draw.group(f"Wi-Fi {wifi.ssid}: default route", "".join(parts))


def _wire(plan: _Plan) -> str:
    """A bar above each row, all joined at the left; every node hangs from its row's."""
    parts = []
    for row in range(plan.rows):
        y = plan.top + row * _ROW
        nodes = plan.cluster.nodes[row * plan.columns : (row + 1) * plan.columns]
        end = plan.corner(nodes[-1])[0] + _BOX_WIDTH / 2
        parts.append(draw.line(_MARGIN - 12, y, end, y, stroke=_WIRE, width=4))
        for node in nodes:
            x, top = plan.corner(node)
            parts.append(draw.line(x + _BOX_WIDTH / 2, y, x + _BOX_WIDTH / 2, top, stroke=_WIRE))
    last = plan.top + (plan.rows - 1) * _ROW
    if plan.rows > 1:
        parts.append(draw.line(_MARGIN - 12, plan.top, _MARGIN - 12, last, stroke=_WIRE, width=4))
    return draw.group(f"wire {plan.cluster.subnet}", "".join(parts))


def _node(plan: _Plan, node: Node) -> str:
    x, y = plan.corner(node)
    fill, edge = _colours(plan.cluster, node)
    board = f", {node.board}" if node.board else ""
    lines = [f"{node.role.name}{board}", str(node.address.ip), *_shares(plan.cluster, node)]
    parts = [
        draw.box(x, y, _BOX_WIDTH, _BOX_HEIGHT, fill=fill, stroke=edge),
        draw.text(x + 12, y + 24, draw.shortened(node.name, _NAME), size=15, fill=_INK, bold=True),
    ]
    if node.role.wifi:
        parts.append(draw.waves(x + _BOX_WIDTH - 22, y + 25, stroke=_RADIO))
    for number, words in enumerate(lines):
        size, colour = (12, _INK) if number < 2 else (11, _QUIET)  # noqa: PLR2004 -- role and address
        at = y + 46 + 20 * number
        parts.append(draw.text(x + 12, at, draw.shortened(words, _LINE), size=size, fill=colour))
    return draw.group(f"{node.name}: {', '.join(lines)}", "".join(parts))


def _shares(cluster: Cluster, node: Node) -> list[str]:
    """At most two lines about the shares of a node; more would not fit."""
    exported = [share.path for share in cluster.shares if share.server == node.name]
    mounted = [share.path for share in cluster.shares if share.server != node.name]
    return [*_counted("exports", exported), *_counted("mounts", mounted)]


def _counted(verb: str, paths: list[str]) -> list[str]:
    if not paths:
        return []
    return [f"{verb} {paths[0]}" if len(paths) == 1 else f"{verb} {len(paths)} shares"]


def _colours(cluster: Cluster, node: Node) -> tuple[str, str]:
    if node.role.head:
        return _HEAD
    names = list(dict.fromkeys(n.role.name for n in cluster.nodes if not n.role.head))
    return _ROLES[names.index(node.role.name) % len(_ROLES)]


def _notes(cluster: Cluster) -> list[str]:
    """What the boxes have no room for."""
    notes = [
        f"{share.path}: {share.server} exports it, all others mount it" for share in cluster.shares
    ]
    users = ", ".join(f"{user.name} ({user.uid})" for user in cluster.users)
    notes.append(f"users on every node: {users}")
    if cluster.ntp_servers:
        notes.append(
            f"time: {cluster.head.name} asks {', '.join(cluster.ntp_servers)}, the others ask it"
        )
    return notes


def _legend(plan: _Plan) -> str:
    room = int((plan.width - 2 * _MARGIN) / 7)
    lines = (
        draw.text(
            _MARGIN,
            plan.legend + 18 + 22 * number,
            draw.shortened(words, room),
            size=12,
            fill=_QUIET,
        )
        for number, words in enumerate(_notes(plan.cluster))
    )
    return "".join(lines)
