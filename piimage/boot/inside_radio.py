"""What a node says about its Wi-Fi: runs in the guest as root, prints one JSON value. Never imported by piimage.

`piimage.boot.radio` sends the source over ssh after a line that sets `LIMIT` and `POINT`; it imports nothing of ours.
It waits up to LIMIT seconds for what `POINT` should lead to, then tells whatever there is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIMIT: float = globals().get("LIMIT", 0)
POINT: str = globals().get("POINT", "absent")
#: What comes last: a DHCP client sets the address, and then the route. The others' end is a state of the association.
_WAITS = {"right": ("address", "defaults"), "wrong-passphrase": ("refused",), "absent": ("radio",)}
_LOG = Path("/run/piimage-radio/hostapd.log")
#: The rehearsal's own unit, and netplan's or ifupdown's for wpa_supplicant: what they said explains a failure.
_UNITS = ("a.service", "netplan-wpa-wlan0.service", "ifup@wlan0.service")
_LINES = 15


def said(*argv: str) -> str:
    """A program's output, empty when it failed."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def hostapd() -> str:
    """Everything that the access point has said."""
    return _LOG.read_text(errors="replace") if _LOG.exists() else ""


def look() -> dict[str, Any]:
    """The state of the association, and what came of it."""
    lines = said("wpa_cli", "-i", "wlan0", "status").splitlines()
    status = dict(line.split("=", 1) for line in lines if "=" in line)
    links = json.loads(said("ip", "-j", "-4", "address", "show", "dev", "wlan0") or "[]")
    found = [a for link in links for a in link.get("addr_info", ())]
    return {
        "state": status.get("wpa_state"),
        "ssid": status.get("ssid"),
        "key_management": status.get("key_mgmt"),
        "address": next((f"{a['local']}/{a['prefixlen']}" for a in found), None),
        "refused": hostapd().count("AP-STA-POSSIBLE-PSK-MISMATCH"),
        "radio": Path("/sys/class/net/wlan0").exists() and status.get("wpa_state") is not None,
        "defaults": json.loads(said("ip", "-j", "-4", "route", "show", "default") or "[]"),
    }


def facts() -> dict[str, Any]:
    """Everything, once what is waited for is there or the time is over."""
    began = time.monotonic()
    found = look()
    while not all(map(found.get, _WAITS[POINT])) and time.monotonic() - began < LIMIT:
        time.sleep(min(2, LIMIT))
        found = look()
    return {
        **found,
        "waited": round(time.monotonic() - began, 1),
        "log": {
            unit: said("journalctl", "-b", "-q", "-o", "cat", "-n", str(_LINES), "-u", unit)
            for unit in _UNITS
        }
        | {"hostapd": "\n".join(hostapd().splitlines()[-_LINES:])},
        "country": said("iw", "reg", "get"),
    }


json.dump(facts(), sys.stdout)
