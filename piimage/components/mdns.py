"""Multicast DNS (RFC 6762): the head answers to its name where its Wi-Fi is, whatever address it got there.

By that name a laptop finds the head, and through it all others (`piimage export ssh-config`). Who answers is what the
base has: Avahi (Raspberry Pi OS), else systemd-resolved, which must be told to. A base with neither is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.contribution import Check, Contribution, Stamp
from piimage.components.network_names import WIRED, WIRELESS
from piimage.delta import Delta, File

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

AVAHI, RESOLVED = "avahi-daemon.service", "systemd-resolved.service"
#: Debian and Ubuntu build resolved with mDNS off (resolved.conf(5)).
_GLOBAL = "/etc/systemd/resolved.conf.d/10-piimage.conf"
#: networkd turns it off for every link that does not ask for it (systemd.network(5)); netplan has no word for it, but
#: drop-ins of the files that it writes are read from here. A wire that is matched by its MAC is called `wired`.
_NETWORKD = "/etc/systemd/network/10-netplan-{name}.network.d/10-piimage.conf"
#: NetworkManager.conf(5), connection.mdns: 2 is to resolve and to answer.
_MANAGER = "/etc/NetworkManager/conf.d/91-piimage-mdns.conf"
#: Asks on the wire for the address of NAME.local (RFC 6762 6.7, one-shot query) and prints the answers' addresses.
_ASK = """\
import socket, struct, sys, time
name, own = sys.argv[1:]
labels = b"".join(bytes([len(word)]) + word.encode() for word in (name, "local")) + b"\\0"
query = struct.pack(">6H", 7, 0, 1, 0, 0, 0) + labels + struct.pack(">HH", 1, 1)

def past_name(at):
    while 0 < answer[at] < 192:
        at += answer[at] + 1
    return at + (2 if answer[at] else 1)

def addresses():
    at, (asked, answered) = 12, struct.unpack(">HH", answer[4:8])
    for _ in range(asked):
        at = past_name(at) + 4
    for _ in range(answered):
        at = past_name(at)
        kind, _, _, size = struct.unpack(">HHIH", answer[at:at + 10])
        at += 10 + size
        if kind == 1:
            yield socket.inet_ntoa(answer[at - 4:at])

end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
end.settimeout(3)
for _ in range(20):
    try:
        end.sendto(query, ("224.0.0.251", 5353))
        answer = end.recv(9000)
    except socket.timeout:
        continue
    except OSError:
        time.sleep(3)
        continue
    found = list(addresses())
    if found:
        print(*found)
        break
"""


def speaks(cluster: Cluster, role: Role) -> bool:
    """Whether nodes of `role` shall answer: the head, where it has Wi-Fi and its address is a guess."""
    return cluster.wifi is not None and role.head and role.wifi


def responder(facts: Facts) -> str | None:
    """The unit that answers on this base, or None."""
    for name in (AVAHI, RESOLVED):
        if name in facts.units and (name == AVAHI or facts.units[name].enabled):
            return name
    return None


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """The responder, on and told to answer."""
    unit = responder(facts)
    if unit is None or not speaks(cluster, role):
        return Contribution()
    if unit == AVAHI:
        check = Check(name="mdns", argv=("systemctl", "is-active", unit), expect="^active$")
        return Contribution(enable=(unit,), checks=(check,))
    entries: dict[str, Entry] = {_GLOBAL: File(b"[Resolve]\nMulticastDNS=yes\n")}
    if facts.network_stack == "netplan-networkd":
        for name in (WIRELESS, *WIRED, "wired"):
            entries[_NETWORKD.format(name=name)] = File(b"[Network]\nMulticastDNS=yes\n")
    elif "networkmanager" in facts.network_stack:
        entries[_MANAGER] = File(b"[connection]\nconnection.mdns=2\n")
    check = Check(name="mdns", argv=("resolvectl", "mdns"), expect=r"(?m)^Link \d+ \(\w+\): yes$")
    return Contribution(delta=Delta.of("mdns", entries), checks=(check,))


def stamp(cluster: Cluster, node: Node, facts: Facts, _secrets: Secrets) -> Stamp:
    """Others hear the head: a responder does not answer itself."""
    head = cluster.head
    same = node.role.base == head.role.base  # of another base these facts say nothing
    if node is head or not same or responder(facts) is None or not speaks(cluster, head.role):
        return Stamp()
    argv = ("python3", "-c", _ASK, head.name, str(node.address.ip))
    address = str(head.address.ip).replace(".", "[.]")
    ask = Check(name=f"{head.name}.local", argv=argv, expect=rf"\b{address}\b", needs_cluster=True)
    return Stamp(checks=(ask,))
