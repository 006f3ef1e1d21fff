"""Rules about networks and about what would wait at first boot: profiles, Wi-Fi, wizards."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from piimage.bases.units import ADMIN
from piimage.components import slots
from piimage.components.network_dhcpcd import SUPPLICANT
from piimage.components.network_ifupdown import FOLDER, INTERFACES
from piimage.distros.firmware_hook import HOOK, HOOK_CMDLINE
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
_ASKING_FILES = ("userconf", "userconf.txt", "custom.toml", "firstrun.sh", "sysconf.txt")
#: Of Debian's images for the Raspberry Pi: each is required by a target, from below .requires (image-specs).
_FIRST_BOOT = (
    "rpi-set-sysconf.service",
    "rpi-reconfigure-raspi-firmware.service",
    "rpi-generate-ssh-host-keys.service",
)
_PRIVATE = 0o077
#: In a profile of NetworkManager, in dhcpcd.conf(5), and in interfaces(5).
_ADDRESS = re.compile(
    r"^(?:(?:address\d*|static ip_address)=|[ \t]+address[ \t]+)([0-9.]+)/", re.MULTILINE
)
_STANZA = re.compile(r"^[ \t]*iface[ \t]+(\S+)[ \t]+(inet6?)[ \t]", re.MULTILINE)
_KEY = re.compile(r"^[ \t]*wpa-(?:psk|passphrase|password)[ \t]", re.MULTILINE)


def addresses(view: View) -> set[str]:
    """Addresses that the seed's network-config or the stack's own files give to wires."""
    found: set[str] = set()
    wires = config(view).get("ethernets")
    for wire in wires.values() if isinstance(wires, dict) else ():
        given = wire.get("addresses") if isinstance(wire, dict) else ()
        listed = given if isinstance(given, list) else ()
        found |= {str(each).partition("/")[0] for each in listed}
    texts = [view.text(p) for p in view.below(_PROFILES) if "type=ethernet" in view.text(p)]
    texts += [view.text(path) for path in _interfaces(view)]
    for text in (*texts, view.text("/etc/dhcpcd.conf")):
        found |= set(_ADDRESS.findall(text))
    return found


def _interfaces(view: View) -> list[str]:
    """The files of interfaces(5)."""
    return [path for path in (INTERFACES, *view.below(FOLDER)) if path in view.root]


def ports(view: View) -> Iterator[Finding]:
    """PI212: ifupdown adds up what several files say of a port, and anybody may read a key in one that is open."""
    seen: dict[tuple[str, str], str] = {}
    for path in _interfaces(view):
        text = view.text(path)
        for port in _STANZA.findall(text):
            if seen.setdefault(port, path) != path:
                yield Finding("PI212", path, f"`{port[0]}` is configured in `{seen[port]}` too")
        mode = view.root[path].mode
        if mode & _PRIVATE and _KEY.search(text):
            yield Finding("PI212", path, f"it holds a key, and its mode is {mode:04o}")


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
    if not wireless and "network={" not in view.text(SUPPLICANT):
        return
    countries = [t.removeprefix(_COUNTRY) for t in view.tokens if t.startswith(_COUNTRY)]
    if not countries:
        yield Finding("PI213", view.cmdline, f"it has no `{_COUNTRY}`, so Wi-Fi stays off")
    elif not re.fullmatch(r"[A-Z]{2}", countries[-1]):
        yield Finding("PI213", view.cmdline, f"`{countries[-1]}` is no country")
    elif (
        HOOK_CMDLINE in view.text(HOOK)
        and f"{_COUNTRY}{countries[-1]}" not in view.text(HOOK_CMDLINE).split()
    ):
        words = f"`{view.cmdline}` has the country from elsewhere: it goes with the next kernel"
        yield Finding("PI213", HOOK_CMDLINE, words)
    # bullseye has it on board with that state, and dhcpcd in force.
    in_force = f"{ADMIN}/multi-user.target.wants/NetworkManager.service" in view.root
    if in_force and re.search(r"^WirelessEnabled=false", view.text(_STATE), re.MULTILINE):
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
        if path.startswith(f"{ADMIN}/") and ".requires/" in path and name in _FIRST_BOOT:
            yield Finding("PI214", path, f"`{name}` would undo what makes the node this one")
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


RULES = (profiles, ports, wifi, wizard)
