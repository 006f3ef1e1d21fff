"""Wired addresses: inside the subnet, each once, room for all, and no second way out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from piimage.report import shown
from piimage.spec import model
from piimage.spec.seats import first_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.spec.draft import Draft
    from piimage.spec.place import FieldPath
    from piimage.spec.seats import Seat

_FIRST: FieldPath = ("network", "wired", "first")
_GATEWAY: FieldPath = ("network", "wired", "gateway")
_DNS: FieldPath = ("network", "wired", "dns")
_SUBNET: FieldPath = ("network", "wired", "subnet")
#: What home routers hand out over Wi-Fi.
_HOME = (IPv4Network("192.168.0.0/24"), IPv4Network("192.168.1.0/24"))
_SHARED = IPv4Network("100.64.0.0/10")  # RFC 6598


def check(draft: Draft, places: Sequence[Seat]) -> None:
    """Add what is wrong with the wired network."""
    _gateway_and_wifi(draft)
    _duplicates(draft, places)
    if not draft.whole(*_SUBNET):
        return
    wired = draft.spec.network.wired
    first_fits = wired.first is None or _fits(draft, _FIRST, wired.first)
    if first_fits and draft.whole(*_FIRST):
        _room(draft, places)
    for seat in places:
        if seat.entry is not None and seat.entry.address is not None:
            _fits(draft, seat.where("address"), seat.entry.address)
    if wired.gateway is not None:
        _fits(draft, _GATEWAY, wired.gateway)
        for seat in places:
            if seat.address == wired.gateway:
                message = f"`{wired.gateway}` is the address of {shown(seat.name)} and the gateway"
                hint = "`gateway` is the router's own address; `first` may move the nodes'"
                draft.error(_GATEWAY, message, hint, "duplicate-address")
    _name_servers(draft)
    _unusual(draft)


def _fits(draft: Draft, path: FieldPath, address: IPv4Address) -> bool:
    subnet = draft.spec.network.wired.subnet
    low, high = subnet.network_address + 1, subnet.broadcast_address - 1
    hint = f"addresses of nodes go from `{low}` to `{high}`"
    if address not in subnet:
        message = f"`{address}` is outside the wired subnet `{subnet}`"
    elif address == subnet.network_address:
        message = f"`{address}` is the address of the subnet itself"
    elif address == subnet.broadcast_address:
        message = f"`{address}` is the broadcast address of `{subnet}`"
    else:
        return True
    draft.error(path, message, hint, "address-range")
    return False


def _room(draft: Draft, places: Sequence[Seat]) -> None:
    """Every node without an address of its own gets `first` plus its number."""
    homeless = [seat for seat in places if seat.address is None]
    if not homeless:
        return
    wired = draft.spec.network.wired
    first = first_address(wired)
    room = int(wired.subnet.broadcast_address) - int(first)
    message = (
        f"`{wired.subnet}` has room for {room} nodes from `{first}` on, but there are {len(places)}"
    )
    form = draft.spec.nodes
    path: FieldPath = ("nodes", "count") if isinstance(form, model.NodeCount) else homeless[0].path
    draft.error(path, message, "take a larger subnet or a lower `first`", "subnet-full")


def _duplicates(draft: Draft, places: Sequence[Seat]) -> None:
    found: dict[IPv4Address, Seat] = {}
    for seat in places:
        if seat.address is None:
            continue
        other = found.setdefault(seat.address, seat)
        if other is seat or not _sure(draft, seat) or not _sure(draft, other):
            continue
        message = (
            f"`{seat.address}` is the address of {shown(other.name)} and of {shown(seat.name)}"
        )
        written = seat if seat.where("address") != seat.path else other
        rest = other if written is seat else seat
        if rest.where("address") == rest.path:
            hint = f"{shown(rest.name)} has it by its place: `first` plus {rest.number}"
        else:
            line = draft.document.span(draft.origin(rest.where("address"))).line + 1
            hint = f"the other one stands on line {line}"
        draft.error(written.where("address"), message, hint, "duplicate-address")


def _sure(draft: Draft, seat: Seat) -> bool:
    """Whether the address is the one that is meant, not one taken for want of a valid one."""
    if seat.where("address") != seat.path:
        return True
    own = draft.origin(seat.path)
    return draft.whole("network", "wired") and draft.whole("nodes") and draft.whole(*own)


def _gateway_and_wifi(draft: Draft) -> None:
    network = draft.spec.network
    if network.wired.gateway is not None and network.wifi is not None:
        message = "a gateway on the wire together with Wi-Fi: two default routes"
        hint = "remove `gateway`; the default route belongs to Wi-Fi"
        draft.error(_GATEWAY, message, hint, "two-gateways", key=True)


def _name_servers(draft: Draft) -> None:
    wired = draft.spec.network.wired
    if wired.dns and wired.gateway is None and draft.whole(*_GATEWAY):
        message = "name servers on the wire without a gateway"
        hint = "give `gateway` too, or leave `dns` out: Wi-Fi brings its own"
        draft.error(_DNS, message, hint, "dns-without-gateway", key=True)


def _unusual(draft: Draft) -> None:
    subnet = draft.spec.network.wired.subnet
    if not subnet.is_private and not subnet.subnet_of(_SHARED):
        message = f"`{subnet}` is public address space: the nodes will not reach its real owners"
        draft.warning(_SUBNET, message, "use a private one such as `10.1.10.0/24`", "public-subnet")
    if draft.spec.network.wifi is not None and any(subnet.overlaps(home) for home in _HOME):
        message = f"`{subnet}` is what many home routers use on Wi-Fi; two such networks clash"
        draft.warning(_SUBNET, message, "use one such as `10.1.10.0/24`", "home-subnet")
