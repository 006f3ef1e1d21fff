"""cloud-init: the NoCloud seed that makes a variant this node, and the settings before it.

The seed lies in a directory of the root file system, in slots that only root can read: on the FAT
every user of the node could read password hashes and the Wi-Fi key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from piimage.components import slots
from piimage.components.contribution import Check, Contribution
from piimage.components.emit import cloud_config, yaml_text
from piimage.delta import Absent, Delta, Directory, File, Slot
from piimage.distros import firmware_hook
from piimage.distros.boot_loader import command_line
from piimage.distros.family import family
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.cluster import Cluster, Node, Role
    from piimage.delta import Entry
    from piimage.facts import Facts

_CONFIG, _FOLDER = "/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d"
#: Of all files the one whose name sorts last has the last word, by bytes: `_` comes after `-`
#: (cloud-init, util.read_conf_d). Raspberry Pi OS' own is called 99_raspberry-pi.cfg.
_NAMES = ("99-zz-piimage.cfg", "99_zz-piimage.cfg", "zz-piimage.cfg", "~piimage.cfg")
#: The list stays on one line: ds-identify reads it without a YAML parser. `seedfrom` and `fs_label`
#: undo what vendors set (Raspberry Pi OS, Ubuntu); without a label no stick in a port can replace
#: the seed. `ssh_genkeytypes`, `users` and `locale` stand here since the schemas of user-data (of
#: some versions) want at least one key type, at least one user, and a name. cloud-init logs the whole
#: network-config, Wi-Fi key and all, so its log is not for the group `adm`.
_SETTINGS = """\
datasource_list: [NoCloud, None]
datasource:
  NoCloud:
    seedfrom: null
    fs_label: null
users: []
locale: false
manage_etc_hosts: false
preserve_hostname: false
ssh_deletekeys: false
ssh_genkeytypes: []
syslog_fix_perms: ["root:root"]
"""
#: Either of them switches cloud-init off.
_SWITCH = "/etc/cloud/cloud-init.disabled"
#: Keys of the kernel command line that override a seed: `ds=nocloud;i=ID`, as Raspberry Pi's Imager writes it, would
#: give all nodes one instance id (DataSourceNoCloud.py); `cloud-init=disabled` means what it says.
#: `network-config` goes before the seed's.
_OVERRIDES = ("ds", "cloud-init", "network-config")
_NO_NETWORK = "network: {config: disabled}\n"
#: What settings say of the network goes before the seed (stages.py, _find_networking_config), and `{config: disabled}`
#: is what netplan's file tells people to write there. Of a key that is null in the last file nothing is left.
_SEEDS_NETWORK = "network: null\n"
_NETWORK_KEY = re.compile(r"^[\"']?network[\"']?[ \t]*:", re.MULTILINE)
#: An upgrade from Ubuntu 16.04 leaves it: the network of the seed is not looked at then (the same function).
_UPGRADED = "/var/lib/cloud/data/upgraded-network"
#: Without it the first boot writes apt's sources anew from a template (cc_apt_configure.py, `apply_apt`), and with them
#: goes the mirror that the image was made to use. Debian's package says the same in its cloud.cfg; others do not.
_SOURCES_STAY = "apt: {preserve_sources_list: true}\n"
#: From 24.3 on, and before; each is pulled in by cloud-init.target. Debian enables what is installed, Fedora's presets
#: need not (systemd.preset(5)).
UNITS = (
    "cloud-init-main.service",
    "cloud-init-local.service",
    "cloud-init-network.service",
    "cloud-init.service",
    "cloud-config.service",
    "cloud-final.service",
)
_KIB = 1024


def drop_in(facts: Facts) -> str:
    """The path of our settings: the first of our names that sorts after all that the base has."""
    present = [
        path.removeprefix(f"{_FOLDER}/")
        for path in facts.files
        if path.startswith(f"{_FOLDER}/") and path.endswith(".cfg")
    ]
    theirs = max((name for name in present if name not in _NAMES), default="")
    name = next((name for name in _NAMES if name > theirs), None)
    if name is None:
        raise UnsupportedError(
            f"the base has cloud-init settings in `{_FOLDER}/{theirs}`, after which no name of ours sorts"
        )
    return f"{_FOLDER}/{name}"


def takes_network(facts: Facts) -> bool:
    """Whether the seed's network-config is what configures the base; elsewhere `network` does it."""
    return facts.network_stack == "netplan-networkd"


def _settings(facts: Facts) -> str:
    sources = _SOURCES_STAY if family(facts).name == "debian" else ""
    network = _SEEDS_NETWORK if _says_network(facts) else ""
    return _SETTINGS + sources + (network if takes_network(facts) else _NO_NETWORK)


def _says_network(facts: Facts) -> bool:
    """Whether the base's own settings of cloud-init have something of the network."""
    return any(
        fact.kind == "file" and _NETWORK_KEY.search(fact.text)
        for path, fact in facts.files.items()
        if path == _CONFIG or (path.startswith(f"{_FOLDER}/") and path.endswith(".cfg"))
    )


def refuse(facts: Facts) -> None:
    """Raise `UnsupportedError` for a base where somebody has masked cloud-init, which no package takes back."""
    masked = [name for name in UNITS if name in facts.units and facts.units[name].masked]
    if masked:
        raise UnsupportedError(
            f"the base has `{masked[0]}` masked, without which no node gets its name and its network",
            hint=f"remove /etc/systemd/system/{masked[0]} from the image, or use one where cloud-init runs",
        )


def _sleeping(facts: Facts) -> tuple[str, ...]:
    """Units that no link starts yet."""
    present = {name: facts.units[name] for name in UNITS if name in facts.units}
    return tuple(n for n, unit in present.items() if unit.wanted_by and not unit.enabled)


def packages(_cluster: Cluster, _role: Role) -> tuple[str, ...]:
    """cloud-init itself, for bases that come without."""
    return ("cloud-init",)


def image(cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """The drop-in and the seed's slots; raises `UnsupportedError` for a base whose cloud-init is missing or masked."""
    if facts.cloud_init is None:
        raise UnsupportedError(
            "the base has no cloud-init", hint="use a base with the package cloud-init"
        )
    refuse(facts)
    entries: dict[str, Entry] = {
        drop_in(facts): File(_settings(facts).encode()),
        slots.SEED: Directory(0o700),
        slots.USER_DATA: slots.user_data(cluster),
        slots.META_DATA: Slot(4 * _KIB),
    }
    if takes_network(facts):
        entries[slots.NETWORK] = Slot(8 * _KIB)
    entries |= {path: Absent() for path in (_SWITCH, _UPGRADED) if facts.has(path)}
    # Where there is one, vendor-data is read with ours, and makes users and runs commands like user-data.
    own = (slots.USER_DATA, slots.META_DATA, slots.NETWORK)
    entries |= {
        path: Absent()
        for path in facts.files
        if path.startswith(f"{slots.SEED}/") and (path not in own or path not in entries)
    }
    tokens = [*command_line(facts).split(), *firmware_hook.extra_tokens(facts)]
    present = {token.partition("=")[0] for token in tokens}
    return Contribution(
        delta=Delta.of("cloudinit", entries),
        enable=_sleeping(facts),
        cmdline_drop=tuple(key for key in _OVERRIDES if key in present),
        checks=(
            Check(
                name="cloud-init",
                argv=("cloud-init", "status", "--wait"),
                expect="status: done",
            ),
        ),
    )


def seed(user_data: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, bytes]:
    """The seed's slots without meta-data, which follows from the content of all others.

    Without `network` there is no network-config: the base's network is then configured in other ways.
    The `network` key on top is what `cloud-init schema` wants; NoCloud takes it off (25.1, stages.py).
    """
    filled = {slots.USER_DATA: cloud_config(user_data)}
    if network:
        filled[slots.NETWORK] = yaml_text({"network": network}).encode()
    return filled


def instance_id(cluster: Cluster, node: Node, build: str) -> str:
    """A name for (node, content): with other content, cloud-init's modules run again."""
    return f"piimage-{cluster.name}-{node.name}-{build}"


def meta_data(node: Node, instance: str) -> bytes:
    """meta-data: `local-hostname` lets cloud-init set the name before the network is up."""
    data = {"instance-id": instance, "local-hostname": node.name}
    return yaml_text(data).encode()
