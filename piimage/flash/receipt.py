"""What is remembered of a written card: in the cluster's state, which node it is, from which build, and when."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from piimage.errors import ConfigError, PiimageError
from piimage.flash.card import read_label
from piimage.state import cards
from piimage.state.cards import CardRecord
from piimage.state.state import location, open_state

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.cluster import Cluster, Node
    from piimage.flash.several import Job

#: Node and build of a card.
Held = tuple[str, str]


def next_node(cluster: Cluster) -> Node:
    """The first node that has no card yet; raises `ConfigError` if all have one."""
    known = open_state(cluster, create=False).cards() if location(cluster.source).exists() else ()
    node = cards.next_without_card(cluster, known)
    if node is None:
        raise ConfigError(
            f"every node of `{cluster.name}` has a card",
            hint="name the node that gets a new one with `--node`",
        )
    return node


def held_before(path: Path, cluster: Cluster) -> Held | None:
    """Which node of this cluster the card is now, if it is one: it will not be any more."""
    try:
        label = read_label(path)
    except PiimageError:  # an empty file, a card that cannot be read: nothing is known of it
        return None
    same = label is not None and label.cluster == cluster.name
    return (label.node, label.build) if label and same else None


def forget(cluster: Cluster, held: Held) -> None:
    """The node that a card held has no card any more, unless it has got another one since.

    Raises `PiimageError` if the state cannot be written.
    """
    if location(cluster.source).exists():
        open_state(cluster, create=False).forget_card(held)


def remember(job: Job, cluster: Cluster) -> None:
    """Record the card in the cluster's state; a file is no card. Without a state there is nothing to record in.

    Raises `PiimageError` if the state cannot be written; the card is good all the same.
    """
    device, source = job.device, job.source
    if device.is_file or source.node is None or not location(cluster.source).exists():
        return
    record = CardRecord(
        node=source.node,
        build=source.build or "",
        variant=source.variant or "",
        written=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        size=device.size,
        model=device.model,
        serial=device.serial,
        cid=device.serial if device.transport == "mmc" else "",
    )
    open_state(cluster, create=False).record_card(record)
