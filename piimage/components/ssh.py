"""The ssh server, and trust made ahead: host keys and certificates come from the state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.components.contribution import Check, Contribution, Stamp
from piimage.components.textfile import comment_out, rewritten
from piimage.delta import Absent, Delta, File, Slot
from piimage.distros.boot_loader import command_line
from piimage.distros.family import family
from piimage.distros.openssh import reads_drop_ins
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

_CONFIG = "/etc/ssh/sshd_config"
_FOLDER = f"{_CONFIG}.d"
#: Of all drop-ins the one whose name sorts first has the first word. Anaconda writes 01-permitrootlogin.conf.
_NAMES = ("10-piimage.conf", "00-piimage.conf", "0-piimage.conf")
#: What we say: where the server's own file says it before it includes the drop-ins, that counts.
_OURS = (
    "hostkey", "hostcertificate", "passwordauthentication", "kbdinteractiveauthentication", "permitrootlogin",
    "x11forwarding", "authorizedkeysfile", "authorizedkeyscommand", "trustedusercakeys",
)  # fmt: skip
#: What else may let in people whom cluster.yaml does not name, or keep out those whom it does, where the base says
#: something else of it; what we say then. OpenSSH looks into `.ssh/authorized_keys2` too (sshd_config(5)).
_GUARDED = {
    "AuthorizedKeysFile": ".ssh/authorized_keys",
    "AuthorizedKeysCommand": "none",
    "TrustedUserCAKeys": "none",
}
_HOST_KEYS = re.compile(r"/etc/ssh/ssh_host_[^/]+_key(?:-cert)?(?:\.pub)?")
_KEY_SIZE = 4096
#: Debian 13 and Fedora make host keys of the missing types at first boot: seconds on a small board
#: for keys that nobody offers, since ours is the only HostKey.
_KEY_MAKERS = (
    "sshd-keygen.service",
    "sshd-keygen.target",
    "regenerate_ssh_host_keys.service",
)
#: Debian's images for the Raspberry Pi make them all where there is none, by configuring openssh-server once more; its
#: file is in /etc, where a mask would be in its place (image-specs).
_OWN_KEY_MAKER = "rpi-generate-ssh-host-keys.service"
#: Raspberry Pi OS from 2022-09 to bookworm starts `firstboot` as init once: it calls the second script, which
#: removes all host keys, ours too, before it makes others (raspberrypi-sys-mods).
_FIRST_BOOT = "/usr/lib/raspberrypi-sys-mods/firstboot"
_REMOVES_KEYS = "/usr/lib/raspberrypi-sys-mods/regenerate_ssh_host_keys"
_KEEPS_KEYS = """\
#!/bin/sh
# The first boot of Raspberry Pi OS calls this to make new host keys. This node was given its own, which all others
# know: there is nothing to do.
exit 0
"""
#: Ubuntu from 22.10 on lets a socket start the server. A service that runs needs no first caller, and the drop-ins
#: of the two contradict each other (Ubuntu's release notes say how to go back).
_SOCKET = "ssh.socket"
_SOCKET_LEFTOVERS = (
    "/etc/systemd/system/ssh.service.d/00-socket.conf",
    "/etc/systemd/system/ssh.socket.d/addresses.conf",
)


def image(cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """Settings, unit and room for keys; raises `UnsupportedError` without a fit server."""
    unit = family(facts).ssh_unit
    if unit not in facts.units or not facts.text(_CONFIG):
        raise UnsupportedError(
            "the base has no ssh server", hint="use a base with the package openssh-server"
        )
    if cluster.ssh.x11_forwarding and not {"xauth", "xorg-x11-xauth"} & set(facts.packages):
        raise UnsupportedError(
            "X11 forwarding needs the package xauth, which the base does not have",
            hint="set `ssh: {x11_forwarding: false}` or use a base with xauth",
        )
    entries: dict[str, Entry] = {
        **_settings(cluster, facts),
        slots.HOST_KEY: Slot(_KEY_SIZE),
        slots.HOST_PUBLIC: Slot(_KEY_SIZE, mode=0o644),
        slots.HOST_CERTIFICATE: Slot(_KEY_SIZE, mode=0o644),
        slots.KNOWN_HOSTS: slots.known_hosts(cluster),
    }
    if _FIRST_BOOT in command_line(facts) and facts.has(_REMOVES_KEYS):
        entries[_REMOVES_KEYS] = File(_KEEPS_KEYS.encode(), mode=0o755)
    entries |= {path: Absent() for path in _SOCKET_LEFTOVERS if facts.has(path)}
    # Keys of another type that the image has: all nodes would share them.
    others = filter(_HOST_KEYS.fullmatch, facts.files)
    entries |= {path: Absent() for path in others if path not in entries}
    socket = facts.units.get(_SOCKET)
    off = [_SOCKET] if socket is not None and socket.enabled else []
    off += [_OWN_KEY_MAKER] if _OWN_KEY_MAKER in facts.units else []
    return Contribution(
        delta=Delta.of("ssh", entries),
        enable=(unit,),
        disable=tuple(off),
        mask=tuple(name for name in _KEY_MAKERS if name in facts.units),
        checks=(
            Check(name="ssh server", argv=("systemctl", "is-active", unit), expect="^active$"),
        ),
    )


def _settings(cluster: Cluster, facts: Facts) -> dict[str, Entry]:
    """A drop-in; where the server reads none first (OpenSSH before 8.2: buster), the same heads its own file."""
    text, name = facts.text(_CONFIG), _name(facts)
    ours = config_text(cluster) + _guarding(facts)
    if name and reads_drop_ins(text, _FOLDER, before=_OURS):
        return {f"{_FOLDER}/{name}": File(ours.encode())}
    # Each HostKey counts, not the first one alone.
    others = comment_out(text, ("HostKey", "HostCertificate"))
    return {_CONFIG: rewritten(facts, _CONFIG, f"{ours}\n{others}")}


def _guarding(facts: Facts) -> str:
    """Lines for what the base sets otherwise, before it does."""
    lines = ""
    texts = [
        fact.text for path, fact in facts.files.items()
        if fact.kind == "file" and (path == _CONFIG or path.startswith(f"{_FOLDER}/"))
    ]  # fmt: skip
    for word, ours in _GUARDED.items():
        said = re.compile(
            rf"^[ \t]*{word}[ \t=]+(?![ \t=]|{re.escape(ours)}[ \t]*$)",
            re.IGNORECASE | re.MULTILINE,
        )
        if any(map(said.search, texts)):
            lines += f"{word} {ours}\n"
    return lines


def _name(facts: Facts) -> str:
    """The first of our names that sorts before all that the base has, or `""`."""
    paths = (path.rpartition("/") for path in facts.files)
    present = [name for folder, _, name in paths if folder == _FOLDER and name.endswith(".conf")]
    theirs = min((name for name in present if name not in _NAMES), default="~")
    return next((name for name in _NAMES if name < theirs), "")


def config_text(cluster: Cluster) -> str:
    """sshd_config(5) of ours: the first value of a keyword wins, so it comes first."""

    def said(value: bool) -> str:  # noqa: FBT001 -- a word for a truth value
        return "yes" if value else "no"

    return (
        f"HostKey {slots.HOST_KEY}\n"
        f"HostCertificate {slots.HOST_CERTIFICATE}\n"
        f"PasswordAuthentication {said(cluster.ssh.password_authentication)}\n"
        "KbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        f"X11Forwarding {said(cluster.ssh.x11_forwarding)}\n"
    )


def stamp(cluster: Cluster, node: Node, _facts: Facts, secrets: Secrets) -> Stamp:
    """This node's key and certificate, and how to know all others."""
    key = secrets.host_keys[node.name]
    return Stamp(
        slots={
            slots.HOST_KEY: key.private,
            slots.HOST_PUBLIC: key.public.strip().encode() + b"\n",
            slots.HOST_CERTIFICATE: key.certificate.strip().encode() + b"\n",
            slots.KNOWN_HOSTS: known_hosts_text(cluster, secrets).encode(),
        },
        user_data={
            "ssh_deletekeys": False,
            "disable_root": True,
            "no_ssh_fingerprints": True,
            "ssh": {"emit_keys_to_console": False},
        },
        checks=(
            Check(
                name="host certificate",
                argv=("ssh-keygen", "-L", "-f", slots.HOST_CERTIFICATE),
                expect=rf"\b{node.name}\b",
            ),
        ),
    )


def host_names(cluster: Cluster, node: Node) -> list[str]:
    """What people and programs may call a node: name, qualified name, address."""
    qualified = [f"{node.name}.{cluster.domain}"] if cluster.domain else []
    return [node.name, *qualified, str(node.address.ip)]


def known_hosts_text(cluster: Cluster, secrets: Secrets) -> str:
    """ssh_known_hosts: the CA for all nodes, and each key for clients without certificates."""
    keys = {name: key.public for name, key in secrets.host_keys.items()}
    return "".join(known_hosts_lines(cluster, secrets.ca_public, keys))


def known_hosts_lines(cluster: Cluster, ca: str, keys: Mapping[str, str]) -> list[str]:
    """Lines of a known_hosts file from the public lines of the CA and of the nodes that have a key."""
    names = {node.name: ",".join(host_names(cluster, node)) for node in cluster.nodes}
    lines = [f"@cert-authority {','.join(names.values())} {_bare(ca)}\n"]
    return lines + [
        f"{hosts} {_bare(keys[name])}\n" for name, hosts in names.items() if name in keys
    ]


def _bare(public: str) -> str:
    """Type and key of a public key line, without its comment."""
    return " ".join(public.split()[:2])
