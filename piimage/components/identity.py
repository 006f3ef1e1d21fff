"""Identity: names and addresses of all nodes, and no identity that two nodes would share.

The host name comes with the stamp: cloud-init sets it from the seed in its local stage, before the
network is up. /etc/hosts is a slot, because it changes whenever the cluster grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.components.contribution import Check, Contribution, Stamp
from piimage.components.textfile import rewritten
from piimage.delta import Absent, Delta, Directory, File
from piimage.distros.boot_loader import command_line

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

MACHINE_ID = "/etc/machine-id"
_DBUS_ID = "/var/lib/dbus/machine-id"
_LOCALHOST = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""
#: Asks for locale, keymap and root password on the console when the machine id is `uninitialized`
#: (systemd-firstboot(1)); a node without keyboard would wait for ever.
_PROMPT = "systemd-firstboot.service"
#: Debian's images for the Raspberry Pi take a host name, root's password in clear and root's one key from a file on the
#: FAT, at every boot, and basic.target requires it: without the FAT the node would not come up (image-specs,
#: rpi-set-sysconf). Who a node is says its cluster.yaml.
_SYSCONF_UNIT, _SYSCONF = "rpi-set-sysconf.service", "sysconf.txt"


def image(cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """No machine id, a neutral host name, and room for the roster."""
    entries: dict[str, Entry] = {
        "/etc/hostname": File(b"localhost\n"),
        "/etc/piimage": Directory(),
        slots.HOSTS: slots.hosts(cluster),
        slots.NODES: slots.nodes(cluster),
    }
    if not facts.has(MACHINE_ID) and "ro" in command_line(facts).split():
        # machine-id(5): with none, and /etc not to be written yet, the node would have none at all.
        entries[MACHINE_ID] = File(b"uninitialized\n", mode=0o444)
    if facts.text(MACHINE_ID).strip() not in ("", "uninitialized"):
        # machine-id(5): an empty file is "not a first boot", and skips what grows the root file
        # system.
        entries[MACHINE_ID] = rewritten(facts, MACHINE_ID, "uninitialized\n", mode=0o444)
    dbus = facts.files.get(_DBUS_ID)
    if dbus is not None and dbus.kind == "file":
        entries[_DBUS_ID] = Absent()
    sysconf = f"{facts.firmware}/{_SYSCONF}"
    if facts.has(sysconf):
        entries[sysconf] = Absent()
    return Contribution(
        delta=Delta.of("identity", entries),
        disable=(_SYSCONF_UNIT,) if _SYSCONF_UNIT in facts.units else (),
        mask=(_PROMPT,) if _PROMPT in facts.units else (),
    )


def stamp(cluster: Cluster, node: Node, _facts: Facts, _secrets: Secrets) -> Stamp:
    """The roster of all nodes and the name of this one."""
    user_data = {
        "hostname": node.name,
        "preserve_hostname": False,
        "prefer_fqdn_over_hostname": False,
        "manage_etc_hosts": False,
    }
    if cluster.domain:
        user_data["fqdn"] = f"{node.name}.{cluster.domain}"
    names = "".join(f"{name}\n" for name in cluster.addresses)
    return Stamp(
        slots={slots.HOSTS: hosts_text(cluster).encode(), slots.NODES: names.encode()},
        user_data=user_data,
        checks=(
            Check(name="host name", argv=("hostname",), expect=f"^{node.name}$"),
            *(
                Check(
                    name=f"address of {name}", argv=("getent", "hosts", name), expect=str(address)
                )
                for name, address in cluster.addresses.items()
            ),
        ),
    )


def hosts_text(cluster: Cluster) -> str:
    """hosts(5) for all nodes: no 127.0.1.1, which MPI would take for the node's address."""
    lines = []
    for name, address in cluster.addresses.items():
        names = f"{name}.{cluster.domain} {name}" if cluster.domain else name
        lines.append(f"{address} {names}\n")
    return _LOCALHOST + "".join(lines)
