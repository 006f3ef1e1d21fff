"""Random cluster.yaml data that must validate, for property tests of all that a cluster becomes.

`clusters()` gives plain values as YAML would; `to_yaml` writes them; `load_data` resolves them.
"""

from __future__ import annotations

import ipaddress
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from piimage import resolve
from piimage.spec.checks.accounts import RESERVED

#: Hashes in every accepted form; the letters are made up.
HASHES = (
    "$y$j9T$abcdefghijklmnopqrstu.$" + "A" * 43,
    "$6$saltsalt$" + "b" * 86,
    "$6$rounds=5000$salt.$" + "C" * 86,
    "$5$saltsalt$" + "d" * 43,
    "$2b$12$" + "e" * 53,
)
KEYS = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a@b",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA",
)
ZONES = ("Etc/UTC", "Europe/Rome", "America/New_York", "Asia/Kolkata", "Australia/Sydney")
_TEXT = st.characters(exclude_categories=("C", "Zl", "Zp"), exclude_characters=":\ufeff")

_LOWER, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
# Drawn as texts, several times as quickly as by the regular expressions that they are.
#: `[a-z]([a-z0-9-]{0,20}[a-z0-9])?`
labels = st.builds(
    str.__add__, st.sampled_from(_LOWER), st.text(_LOWER + _DIGITS + "-", max_size=21)
).filter(lambda name: not name.endswith("-") and name != "localhost")
#: `[a-z_][a-z0-9_-]{0,31}`
user_names = st.builds(
    str.__add__, st.sampled_from(_LOWER + "_"), st.text(_LOWER + _DIGITS + "_-", max_size=31)
).filter(lambda name: name not in RESERVED and not name.startswith("stand-in"))
ssids = st.text(
    st.characters(exclude_categories=("C", "Zl", "Zp"), exclude_characters="\ufeff"),
    min_size=1,
    max_size=32,
).filter(lambda text: len(text.encode()) <= 32)
passphrases = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=63)
macs = st.binary(min_size=5, max_size=5).map(lambda raw: "dc:" + raw.hex(":"))


@st.composite
def subnets(draw: st.DrawFn) -> ipaddress.IPv4Network:
    """A private subnet from /8 to /28."""
    size = draw(st.integers(8, 28))
    pools = [ipaddress.IPv4Network("10.0.0.0/8"), ipaddress.IPv4Network("172.16.0.0/12")]
    pool = draw(st.sampled_from([p for p in pools if p.prefixlen <= size]))
    offset = draw(st.integers(0, 2 ** (size - pool.prefixlen) - 1)) << (32 - size)
    return ipaddress.IPv4Network((int(pool.network_address) + offset, size))


#: What a user may have beside name, number and home.
_USER: dict[str, st.SearchStrategy[Any]] = {
    "gecos": st.text(_TEXT, max_size=30),
    "sudo": st.sampled_from(["none", "password", "nopasswd"]),
    "shell": st.sampled_from(["/bin/bash", "/bin/sh"]),
    "groups": st.lists(st.sampled_from(["video", "gpio", "dialout"]), max_size=3),
    "ssh_keys": st.lists(st.sampled_from(KEYS), max_size=2),
    "password": st.just("locked") | st.builds(dict, hash=st.sampled_from(HASHES)),
    "home": st.sampled_from(["/srv/homes/", "/home/"]),
}
_user = st.fixed_dictionaries({}, optional=_USER)


@st.composite
def users(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to four users, all different; the first may be renamed from the image's own."""
    names = draw(st.lists(user_names, min_size=1, max_size=4, unique=True))
    uids = draw(
        st.lists(st.integers(1000, 59999), min_size=len(names), max_size=len(names), unique=True)
    )
    found = []
    for number, (name, uid) in enumerate(zip(names, uids, strict=True)):
        user = {"name": name, **draw(_user)}
        if "home" in user:
            user["home"] += name
        user["uid"] = uid
        if number == 0 and draw(st.booleans()):
            user["rename_from"] = "auto"
        found.append(user)
    return found


@st.composite
def wifis(draw: st.DrawFn) -> dict[str, Any]:
    """An access point with its key in one of the forms that need nothing from outside."""
    digits = draw(st.binary(min_size=32, max_size=32)).hex()
    key = draw(st.sampled_from(["digits", "hash", "clear"]))
    psk: Any = {"digits": digits, "hash": {"hash": digits}, "clear": draw(passphrases)}[key]
    if isinstance(psk, str) and psk.startswith(("env:", "file:")):
        psk = digits
    found = {
        "ssid": draw(ssids),
        "psk": psk,
        "country": draw(st.sampled_from(["IT", "NO", "US", "JP", "GB"])),
    }
    if draw(st.booleans()):
        found["hidden"] = draw(st.booleans())
    return found


#: What a node may have beside its name; `mac` stands for one of its own.
_NODE: dict[str, st.SearchStrategy[Any]] = {
    "mac": st.none(),
    "board": st.sampled_from(["pi3", "pi4"]),
    "cmdline": st.just(["quiet"]),
}
_wired_node = st.fixed_dictionaries({}, optional=_NODE)
_wireless_node = st.fixed_dictionaries({}, optional={**_NODE, "wifi": st.booleans()})


@st.composite
def nodes(draw: st.DrawFn, room: int, *, wifi: bool) -> Any:
    """Either form, at most `room` nodes and at most 8."""
    most = min(room, 8)
    if draw(st.booleans()):
        count = draw(st.integers(1, most))
        form = {"count": count, "name": draw(labels) + "{n}"}
        return {**form, "head": draw(st.integers(0, count - 1))} if draw(st.booleans()) else form
    names = draw(st.lists(labels, min_size=1, max_size=most, unique=True))
    head = draw(st.integers(0, len(names) - 1))
    found: list[dict[str, Any]] = []
    addresses = draw(st.lists(macs, min_size=len(names), max_size=len(names), unique=True))
    for number, (name, mac) in enumerate(zip(names, addresses, strict=True)):
        node: dict[str, Any] = {"name": name, **draw(_wireless_node if wifi else _wired_node)}
        if "mac" in node:
            node["mac"] = mac
        found.append({**node, "role": "head" if number == head else "worker"})
    return found


@st.composite
def shares(draw: st.DrawFn, nodes_: Any) -> list[dict[str, Any]]:
    """Up to three shares of any node, at paths whose units' names need escapes."""
    if isinstance(nodes_, dict):
        names = [nodes_["name"].replace("{n}", str(n)) for n in range(nodes_["count"])]
    else:
        names = [node["name"] for node in nodes_]
    places = ["/srv/cluster", "/srv/a-b.c", "/mnt/x@1+2/deep", "/opt/data_set"]
    optional = {
        "server": st.sampled_from(["head", *names]),
        "owner": st.just("root"),
        "mode": st.sampled_from(["0755", "2775", "1777"]),
    }
    return [
        {"path": path, **draw(st.fixed_dictionaries({}, optional=optional))}
        for path in draw(st.lists(st.sampled_from(places), max_size=3, unique=True))
    ]


_SSH = {
    "password_authentication": st.booleans(),
    "x11_forwarding": st.booleans(),
    "trust": st.sampled_from(["star", "mesh"]),
}
#: What a cluster may have beside what it must have.
_REST = {
    "timezone": st.sampled_from(ZONES),
    "locale": st.sampled_from(["C.UTF-8", "it_IT.UTF-8"]),
    "keymap": st.sampled_from(["us", "it", "de"]),
    "domain": st.sampled_from(["lab.internal", "cluster"]),
    "root": st.builds(dict, password=st.just("locked")),
    "ssh": st.fixed_dictionaries({}, optional=_SSH),
    "time": st.builds(dict, servers=st.lists(st.sampled_from(["pool.ntp.org", "10.0.0.1"]))),
    "roles": st.just({"head": {"target": "graphical"}}) | st.just({"worker": {}}),
}
_rest = st.fixed_dictionaries({}, optional=_REST)


@st.composite
def clusters(draw: st.DrawFn, *, shared: bool = False) -> dict[str, Any]:
    """The data of a valid cluster.yaml that needs neither environment nor files, perhaps with shares."""
    subnet = draw(subnets())
    wifi = draw(st.none() | wifis())
    low, high = int(subnet.network_address) + 1, int(subnet.broadcast_address) - 1
    first = draw(st.integers(low, high))
    wired: dict[str, Any] = {"subnet": str(subnet), "first": str(ipaddress.IPv4Address(first))}
    if wifi is None and first > low and draw(st.booleans()):
        wired["gateway"] = str(ipaddress.IPv4Address(low))
        wired |= draw(st.sampled_from([{}, {"dns": ["9.9.9.9", wired["gateway"]]}]))
    found: dict[str, Any] = {
        "version": 1,
        "name": draw(labels),
        "users": draw(users()),
        "network": {"wired": wired, **({"wifi": wifi} if wifi else {})},
        "nodes": draw(nodes(high - first + 1, wifi=wifi is not None)),
    }
    if shared and draw(st.booleans()):
        found["shares"] = draw(shares(found["nodes"]))
    return {**found, **draw(_rest)}


class _Quoting(yaml.SafeDumper):
    """Quotes every text: `1e100` is text to YAML 1.1, which PyYAML writes, and a number to 1.2."""


_Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def to_yaml(data: Any) -> str:
    """The data as a file that YAML 1.1 and 1.2 read alike."""
    return str(yaml.dump(data, Dumper=_Quoting, allow_unicode=True, sort_keys=False, width=200))


def load_data(data: Any, directory: Path | None = None) -> resolve.Loaded:
    """The resolved cluster of such data; raises `ConfigError` like `resolve.load`."""
    with tempfile.TemporaryDirectory() as scratch:
        path = (directory or Path(scratch)) / "cluster.yaml"
        path.write_text(to_yaml(data), encoding="utf-8")
        return resolve.load(path, env={})
