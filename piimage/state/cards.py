"""Which card became which node: `cards.json` in the cluster's state, one record for each node that has a card."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from piimage.disk.atomic import write_bytes, write_errors
from piimage.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from piimage.cluster import Cluster, Node

NAME = "cards.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRecord:
    """The card of a node: what was written (`build`, `variant`), onto what, and when (UTC, ISO 8601).

    `cid` is the card's own number, which only an mmc slot tells; `serial` may be that of a reader. `size` is in
    bytes.
    """

    node: str
    build: str
    variant: str
    written: str
    size: int
    model: str = ""
    serial: str = ""
    cid: str = ""


def read(path: Path) -> tuple[CardRecord, ...]:
    """The records in the file `path`, none if it is not there; raises `StateError` for a damaged one."""
    try:
        document = json.loads(path.read_bytes())
        found = tuple(CardRecord(**each) for each in document)
        if isinstance(document, list) and all(_sound(record) for record in found):
            return found
    except FileNotFoundError:
        return ()
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise StateError(f"`{path}` cannot be read: {words}") from error
    except (ValueError, TypeError):
        pass
    raise StateError(
        f"`{path}` is damaged",
        hint="bring it back from a backup, or remove it: then no node is known to have a card",
    )


def write(path: Path, records: Iterable[CardRecord]) -> None:
    """Make `path` hold the records, all or nothing; it belongs to the directory's owner, root or not."""
    document = [asdict(record) for record in sorted(records, key=lambda record: record.node)]
    write_bytes(path, json.dumps(document, indent=1).encode() + b"\n", mode=0o600)
    owner = path.parent.stat()
    if (
        os.geteuid() == 0 and owner.st_uid != 0
    ):  # cards are written with sudo, the state is a user's
        with write_errors(path):
            os.chown(path, owner.st_uid, owner.st_gid)


def added(records: Iterable[CardRecord], new: CardRecord) -> tuple[CardRecord, ...]:
    """The records with `new` among them: its node has this card now, and no other node has it any more."""
    kept = [
        record
        for record in records
        if record.node != new.node and not (new.cid and record.cid == new.cid)
    ]
    return (*kept, new)


def next_without_card(cluster: Cluster, records: Sequence[CardRecord]) -> Node | None:
    """The first node of the cluster that has no card yet; None if all have one."""
    done = {record.node for record in records}
    return next((node for node in cluster.nodes if node.name not in done), None)


def _sound(record: CardRecord) -> bool:
    values = asdict(record)
    size = values.pop("size")
    return type(size) is int and all(isinstance(value, str) for value in values.values())
