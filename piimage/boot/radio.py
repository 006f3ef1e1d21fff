"""Asking a running node about its Wi-Fi, and judging what it says against cluster.yaml."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from piimage.boot import guest
from piimage.boot.access_point import AccessPoint
from piimage.boot.checks import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from piimage.boot.access_point import Radio
    from piimage.boot.guest import Access
    from piimage.boot.qemu import Vm
    from piimage.cluster import Wifi

#: Seconds that a board may take from its login prompt to an address by Wi-Fi, or to a refusal.
PATIENCE = 60
_INSIDE = "inside_radio.py"
_WIRELESS = "wlan0"
_COUNTRY = re.compile(r"(?m)^country (\w\w):")


def ask(
    way: Access, vm: Vm, point: AccessPoint, *, wait: float, reach: float
) -> dict[str, Any] | None:
    """What the node says, after up to `wait` seconds; None where the first user is not root by sudo.

    Raises `RehearsalError` when the node does not answer.
    """
    source = files("piimage.boot").joinpath(_INSIDE).read_text(encoding="utf-8")

    text = f"LIMIT, POINT = {wait!r}, {point.value!r}\nexec(compile({source!r}, {_INSIDE!r}, 'exec'))\n"
    done = guest.call(
        way, "sudo -n python3 -", vm, stdin=text.encode(), reach=reach, limit=wait + reach
    )
    if done.returncode == 0:
        return guest.answer(done.stdout)
    words = guest.last(done.stderr)
    if "sudo" in words:
        return None
    raise vm.failure(f"the node's report about its Wi-Fi failed: {words or done.returncode}")


def judge(
    found: Mapping[str, Any] | None, radio: Radio, wifi: Wifi, *, gateway: str | None
) -> tuple[Finding, ...]:
    """Every finding about the Wi-Fi; `gateway` is the wire's, where cluster.yaml gives it one."""
    if found is None:
        said = "not asked: the first user has no passwordless sudo"
        return (Finding("Wi-Fi association", None, _expected(radio, wifi), said),)
    return (
        _association(found, radio, wifi),
        _country(found, wifi),
        *_reached(found, radio, gateway),
    )


def _expected(radio: Radio, wifi: Wifi) -> str:
    return {
        AccessPoint.RIGHT: f"associated with `{wifi.ssid}` by WPA2-PSK",
        AccessPoint.WRONG_PASSPHRASE: "refused by the access point: another passphrase",
        AccessPoint.ABSENT: "not associated: no access point",
    }[radio.point]


def _association(found: Mapping[str, Any], radio: Radio, wifi: Wifi) -> Finding:
    associated = found["state"] == "COMPLETED"
    ok = {
        AccessPoint.RIGHT: associated
        and (found["ssid"], found["key_management"]) == (_shown(wifi.ssid), "WPA2-PSK"),
        AccessPoint.WRONG_PASSPHRASE: not associated and found["refused"] > 0,
        AccessPoint.ABSENT: not associated and found["radio"],
    }[radio.point]
    words = [f"state {found['state'] or 'unknown'}"]
    words += [f"`{found['ssid']}`"] if found["ssid"] else []
    words += [found["key_management"]] if found["key_management"] else []
    words += [f"refused {found['refused']} times"] if found["refused"] else []
    return Finding("Wi-Fi association", ok, _expected(radio, wifi), ", ".join(words))


def _shown(ssid: str) -> str:
    r"""The SSID as wpa_cli prints it: printable ASCII as it is but for `"` and `\`, other bytes as `\xNN`."""
    special = {'"': '\\"', "\\": "\\\\", "\x1b": "\\e", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    letters = (chr(byte) for byte in ssid.encode())
    return "".join(
        special.get(x, x if x.isascii() and x.isprintable() else f"\\x{ord(x):02x}")
        for x in letters
    )


def _country(found: Mapping[str, Any], wifi: Wifi) -> Finding:
    countries = sorted(set(_COUNTRY.findall(found["country"])))
    said = ", ".join(countries) or "none"
    return Finding("Wi-Fi country", wifi.country in countries, wifi.country, said)


def _reached(found: Mapping[str, Any], radio: Radio, wired: str | None) -> Iterator[Finding]:
    """The default route is the Wi-Fi's where there is one; what the wire has is what cluster.yaml gives it."""
    defaults = found["defaults"]
    own = [r.get("gateway") for r in defaults if r.get("dev") == _WIRELESS]
    others = [r.get("gateway") for r in defaults if r.get("dev") != _WIRELESS]
    associated = radio.point is AccessPoint.RIGHT
    if associated:
        address = found["address"] or "none"
        prefix = str(radio.network.network_address).rpartition(".")[0] + "."
        ok = address.startswith(prefix)
        yield Finding("Wi-Fi address", ok, f"one of {radio.network}, by DHCP", address)
    expected = [radio.gateway] if associated else []
    said = (
        ", ".join(f"via {r.get('gateway')} dev {r.get('dev')}" for r in defaults)
        or "no default route"
    )
    wanted = f"via {radio.gateway} dev {_WIRELESS}" if associated else "none over Wi-Fi"
    wanted += f", and via {wired} on the wire" if wired else ", none on the wire"
    ok = own == expected and others == ([wired] if wired else [])
    yield Finding("default route", ok, wanted, said)
