"""What an image that was in use knows of other networks: profiles that would join them, or fight for our ports.

cluster.yaml says which networks a node is in. A profile counts that is for one of our ports or for any: a keyfile
without `interface-name`, and Wi-Fi above all. What is for another port (`eth1`), and what needs no port, such as a VPN,
stays.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from piimage.components.network_names import WIRED, WIRELESS
from piimage.delta import Absent

if TYPE_CHECKING:
    from collections.abc import Container

    from piimage.delta import Entry
    from piimage.facts import Facts

_KEYFILES, _NETPLAN, _SUPPLICANT, _NETWORKD = (
    "/etc/NetworkManager/system-connections/",
    "/etc/netplan/",
    "/etc/wpa_supplicant/",
    "/etc/systemd/network/",
)
_OURS = (*WIRED, WIRELESS)
#: The names of both kinds, now and before NetworkManager 1.0 (nm-settings-keyfile(5)).
_KIND = re.compile(
    r"^[ \t]*type[ \t]*=[ \t]*(?:802-11-wireless|802-3-ethernet|wifi|ethernet)[ \t]*$", re.MULTILINE
)
_PORT = re.compile(r"^[ \t]*interface-name[ \t]*=[ \t]*(\S+)", re.MULTILINE)
#: Words of a netplan file that is about one of our ports, or any.
_ABOUT = re.compile(rf"\b(?:wifis|match|{'|'.join(_OURS)})\b[\"']?[ \t]*:")
#: A network of wpa_supplicant.conf(5).
_NETWORK = re.compile(r"^[ \t]*network[ \t]*=[ \t]*\{", re.MULTILINE)
#: Of systemd.network(5).
_NAMES = re.compile(r"^[ \t]*(?:Name|OriginalName)[ \t]*=(.*)$", re.MULTILINE)
_TYPE = re.compile(r"^[ \t]*Type[ \t]*=[^\n]*\b(?:ether|wlan)\b", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*[#;].*$", re.MULTILINE)


def gone(facts: Facts, claimed: Container[str]) -> dict[str, Entry]:
    """The files that have to go; `claimed` are paths that are written anyway."""
    found: dict[str, Entry] = {}
    for path, fact in facts.files.items():
        if fact.kind == "file" and path not in claimed and _joins(path, fact.text):
            found[path] = Absent()
    return found


def _joins(path: str, text: str) -> bool:
    active = _COMMENT.sub("", text)
    if path.startswith(_KEYFILES):
        ports = _PORT.findall(active)
        return bool(_KIND.search(active)) and (not ports or any(port in _OURS for port in ports))
    if path.startswith(_NETWORKD) and path.endswith(".network"):
        return _is_for_ours(active)
    if path.startswith(_NETPLAN) and path.endswith(".yaml"):
        return bool(_ABOUT.search(active))
    # By the name of its port it goes before the one without (wpa_supplicant's unit, dhcpcd's hook).
    return path.startswith(_SUPPLICANT) and path.endswith(".conf") and bool(_NETWORK.search(active))


def _is_for_ours(active: str) -> bool:
    """Whether networkd takes a file for one of our ports, by its name or kind; of those that fit the first counts.

    Which port an address or a path means is not known here (systemd.network(5), `[Match]`).
    """
    names = " ".join(_NAMES.findall(active)).split()
    hits = any(fnmatchcase(port, name) for port in _OURS for name in names if name[0] != "!")
    return hits or (not names and bool(_TYPE.search(active)))
