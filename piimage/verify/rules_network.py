"""Rules about networks and about what would wait at first boot: profiles, Wi-Fi, wizards."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from piimage.bases.units import ADMIN
from piimage.components import slots
from piimage.verify.catalog import Finding
from piimage.verify.documents import document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.verify.view import View

_PROFILES = "/etc/NetworkManager/system-connections"
_NETPLANS = ("/etc/netplan", "/usr/lib/netplan")
_STATE = "/var/lib/NetworkManager/NetworkManager.state"
_RFKILL = "/var/lib/systemd/rfkill"
_COUNTRY = "cfg80211.ieee80211_regdom="
_WIZARDS = ("userconfig.service", "initial-setup.service", "systemd-firstboot.service")
_WIZARD_FILES = ("/etc/ssh/sshd_config.d/rename_user.conf", "/etc/xdg/autostart/piwiz.desktop")
_ASKING_FILES = ("userconf", "userconf.txt", "custom.toml", "firstrun.sh")
_PRIVATE = 0o077
#: In a profile of NetworkManager, and in dhcpcd.conf(5).
_ADDRESS = re.compile(r"^(?:address\d*|static ip_address)=([0-9.]+)/", re.MULTILINE)


def addresses(view: View) -> set[str]:
    """Addresses that the seed's network-config, netplan or NetworkManager give to wires."""
    found: set[str] = set()
    wires = config(view).get("ethernets")
    for wire in wires.values() if isinstance(wires, dict) else ():
        given = wire.get("addresses") if isinstance(wire, dict) else ()
        listed = given if isinstance(given, list) else ()
        found |= {str(each).partition("/")[0] for each in listed}
    texts = [view.text(p) for p in view.below(_PROFILES) if "type=ethernet" in view.text(p)]
    for text in (*texts, view.text("/etc/dhcpcd.conf")):
        found |= set(_ADDRESS.findall(text))
    return found


def config(view: View) -> dict[str, Any]:
    """The seed's network-config, without the key that may be around it; empty where there is none."""
    data, _ = document(view, slots.NETWORK)
    found = data.get("network", data)
    return found if isinstance(found, dict) else {}


def profiles(view: View) -> Iterator[Finding]:
    """PI212: NetworkManager ignores profiles that others may read; netplan warns, and they hold keys."""
    for path in view.below(_PROFILES):
        seen = view.root[path]
        if seen.kind == "file" and (seen.mode & _PRIVATE or seen.uid):
            yield Finding(
                "PI212", path, f"NetworkManager ignores it ({seen.mode:04o}, {seen.uid}:{seen.gid})"
            )
        if seen.kind == "file" and "[connection]" not in view.text(path):
            yield Finding("PI212", path, "it is no profile: `[connection]` is missing")
    for path in (p for folder in _NETPLANS for p in view.below(folder) if p.endswith(".yaml")):
        found, wrong = document(view, path)
        if wrong:
            yield Finding("PI212", path, wrong.replace("cloud-init", "netplan"))
        secret = "password" in str(found)
        if secret and view.root[path].mode & _PRIVATE:
            yield Finding(
                "PI212", path, f"it holds a key, and its mode is {view.root[path].mode:04o}"
            )


def wifi(view: View) -> Iterator[Finding]:
    """PI213: where there is a network without wires, its country is set and no switch is off."""
    wireless = "wifis" in config(view)
    wireless = wireless or any("type=wifi" in view.text(p) for p in view.below(_PROFILES))
    if not wireless:
        return
    countries = [t.removeprefix(_COUNTRY) for t in view.tokens if t.startswith(_COUNTRY)]
    if not countries:
        yield Finding("PI213", view.cmdline, f"it has no `{_COUNTRY}`, so Wi-Fi stays off")
    elif not re.fullmatch(r"[A-Z]{2}", countries[-1]):
        yield Finding("PI213", view.cmdline, f"`{countries[-1]}` is no country")
    if re.search(r"^WirelessEnabled=false", view.text(_STATE), re.MULTILINE):
        yield Finding("PI213", _STATE, "`WirelessEnabled=false` switches Wi-Fi off")
    for path in view.below(_RFKILL):
        if path.endswith(":wlan") and view.text(path).strip() == "1":
            yield Finding("PI213", path, "it switches Wi-Fi off")


def wizard(view: View) -> Iterator[Finding]:
    """PI214: nothing asks on a console where nobody sits."""
    for path in view.root:
        name = path.rpartition("/")[2]
        if path.startswith(f"{ADMIN}/") and ".wants/" in path and name in _WIZARDS:
            yield Finding("PI214", path, f"`{name}` would wait for an answer")
    for path in _WIZARD_FILES:
        if path in view.root:
            yield Finding("PI214", path, "the wizard of Raspberry Pi OS has left it")
    for name in _ASKING_FILES:
        if f"/{name}" in view.firmware:
            yield Finding(
                "PI214", f"{view.place.mountpoint}/{name}", "the first boot would act on it"
            )
    for token in view.tokens:
        if token.startswith("systemd.run="):
            yield Finding("PI214", view.cmdline, f"`{token}` would run at every boot")


RULES = (profiles, wifi, wizard)
