"""What must differ, or be the same, from card to card of a cluster: rules PI301 to PI306."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.verify.catalog import Finding
from piimage.verify.documents import document
from piimage.verify.rules_network import addresses
from piimage.verify.rules_seed import hosts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from piimage.verify.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Of one card. `renews` is whether its first boot gives the disk another id; `roster` is what all must share."""

    name: str
    addresses: frozenset[str]
    instance_id: str
    host_key: str
    disk_id: str
    renews: bool
    roster: Mapping[str, str]


def traits(view: View, node: str) -> Traits | None:
    """The traits of a node's card; a variant has none."""
    if not node:
        return None
    meta, _ = document(view, slots.META_DATA)
    data, _ = document(view, slots.USER_DATA)
    roster = {}
    for path in (slots.HOSTS, slots.NODES, slots.KNOWN_HOSTS):
        seen = view.root.get(path)
        if seen is not None:
            roster[path] = seen.sha256
    name = str(data.get("hostname") or meta.get("local-hostname") or "")
    key = view.text(slots.HOST_PUBLIC).split()
    return Traits(
        name=name,
        addresses=frozenset(addresses(view) or {hosts(view).get(name, "")} - {""}),
        instance_id=str(meta.get("instance-id", "")),
        host_key=" ".join(key[:2]),
        disk_id=view.table.disk_id,
        renews=view.renews_disk_id,
        roster=roster,
    )


def compared(cards: Mapping[str, Traits]) -> dict[str, list[Finding]]:
    """What is wrong between the cards, by the names that they were given."""
    found: dict[str, list[Finding]] = defaultdict(list)
    for rule, what, values in (
        ("PI301", "the name", {n: {t.name} for n, t in cards.items()}),
        ("PI302", "the address", {n: t.addresses for n, t in cards.items()}),
        ("PI303", "the instance id", {n: {t.instance_id} for n, t in cards.items()}),
        ("PI304", "the host key", {n: {t.host_key} for n, t in cards.items()}),
        ("PI305", "the disk id", {n: {t.disk_id} for n, t in cards.items() if not t.renews}),
    ):
        for name, others, value in _shared(values):
            shown = value if rule != "PI304" else value[-16:]
            words = f"{what} `{shown}` is also that of {', '.join(others)}"
            found[name].append(Finding(rule, "", words))
    for path in sorted({path for card in cards.values() for path in card.roster}):
        digests = {name: card.roster.get(path, "") for name, card in cards.items()}
        usual = max(digests.values(), key=list(digests.values()).count)
        for name, digest in digests.items():
            if digest != usual:
                found[name].append(Finding("PI306", path, "it is another than on the other nodes"))
    return found


def _shared(
    values: Mapping[str, set[str] | frozenset[str]],
) -> Iterator[tuple[str, list[str], str]]:
    owners: dict[str, list[str]] = defaultdict(list)
    for name, mine in values.items():
        for value in mine:
            if value:
                owners[value].append(name)
    for value, names in owners.items():
        for name in names if len(names) > 1 else ():
            yield name, [other for other in names if other != name], value
