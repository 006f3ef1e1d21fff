"""Rules about what makes an image one node: cloud-init's seed, the host key, names."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    load_ssh_private_key,
    load_ssh_public_identity,
)

from piimage.bases.units import ADMIN, VENDOR
from piimage.components import slots
from piimage.components.cloudinit import UNITS
from piimage.distros.firmware_hook import HOOK_CMDLINE
from piimage.verify.catalog import Finding
from piimage.verify.documents import document
from piimage.verify.rules_network import addresses, config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.verify.view import View

_SWITCH = "/etc/cloud/cloud-init.disabled"
_CLOUD, _CLOUD_FOLDER = "/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d"
_HEADER = "#cloud-config"
_PRIVATE = 0o077
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Who:
    """Whose card it should be: the node's name, or "" for a variant, which is nobody's."""

    node: str
    instance_id: str = ""


def seed(view: View, who: Who) -> Iterator[Finding]:
    """PI208: what NoCloud wants to be there, in the form it wants it."""
    if not who.node:
        return
    _, wrong = document(view, slots.USER_DATA)
    if wrong:
        yield Finding("PI208", slots.USER_DATA, wrong)
    if view.text(slots.USER_DATA).partition("\n")[0] != _HEADER:
        yield Finding("PI208", slots.USER_DATA, f"its first line is not `{_HEADER}`")
    if slots.NETWORK in view.root:
        _, wrong = document(view, slots.NETWORK)
        if not wrong and config(view).get("version") not in (1, 2):
            wrong = "it has no `version` of 1 or 2"
        if wrong:
            yield Finding("PI208", slots.NETWORK, wrong)
    yield from _meta_data(view, who)


def _meta_data(view: View, who: Who) -> Iterator[Finding]:
    found, wrong = document(view, slots.META_DATA)
    if wrong:
        yield Finding("PI208", slots.META_DATA, wrong)
        return
    if "instance_id" in found:
        words = "cloud-init ignores `instance_id`, it is `instance-id`"
        yield Finding("PI208", slots.META_DATA, words)
    instance = found.get("instance-id")
    if not instance:
        yield Finding("PI208", slots.META_DATA, "it has no `instance-id`")
    elif who.instance_id and instance != who.instance_id:
        words = f"`instance-id` is `{instance}`, not `{who.instance_id}`"
        yield Finding("PI208", slots.META_DATA, words)


def seed_is_private(view: View) -> Iterator[Finding]:
    """PI219: the seed holds hashes and keys."""
    for path in (slots.SEED, *view.below(slots.SEED)):
        seen = view.root.get(path)
        if seen is not None and (seen.mode & _PRIVATE or seen.uid):
            yield Finding(
                "PI219",
                path,
                f"others than root may read it ({seen.mode:04o}, {seen.uid}:{seen.gid})",
            )


def switches(view: View) -> Iterator[Finding]:
    """PI209: nothing switches cloud-init off or gives it another seed, and its units are started."""
    if _SWITCH in view.root:
        yield Finding("PI209", _SWITCH, "it switches cloud-init off")
    for path, tokens in (
        (view.cmdline, view.tokens),
        (HOOK_CMDLINE, view.text(HOOK_CMDLINE).split()),
    ):
        for token in tokens:
            if token.startswith(("ds=", "cloud-init=", "network-config=")):
                yield Finding("PI209", path, f"`{token}` overrides the seed")
    for path, seen in view.root.items():
        if path.startswith(f"{ADMIN}/cloud-") and seen.target == "/dev/null":
            yield Finding("PI209", path, "a part of cloud-init is masked")
    started = {
        path.rpartition("/")[2] for path in view.root if path.rpartition("/")[0].endswith(".wants")
    }
    for path in (f"{VENDOR}/{name}" for name in UNITS if name not in started):
        if path in view.root and "[Install]" in view.text(path):
            yield Finding("PI209", path, "nothing starts this part of cloud-init")


def settings(view: View) -> Iterator[Finding]:
    """PI209, PI210: of all settings the last one counts; they lead to our seed and leave /etc/hosts alone."""
    if _CLOUD not in view.root:
        return
    merged: dict[str, Any] = {}
    for path in (_CLOUD, *(p for p in view.below(_CLOUD_FOLDER) if p.endswith(".cfg"))):
        found, wrong = document(view, path)
        if wrong:
            yield Finding("PI209", path, wrong)
        merged |= found
    if merged.get("manage_etc_hosts"):
        yield Finding("PI210", _CLOUD, "`manage_etc_hosts` rewrites /etc/hosts at every boot")
    listed = merged.get("datasource_list")
    if isinstance(listed, list) and "NoCloud" not in listed:
        yield Finding("PI209", _CLOUD, "`datasource_list` leaves NoCloud out")
    if slots.NETWORK in view.root and merged.get("network"):
        yield Finding("PI209", _CLOUD, "`network` goes before the network of the seed")
    sources = merged.get("datasource") or {}
    source = sources.get("NoCloud") or {} if isinstance(sources, dict) else {}
    for key in ("seedfrom", "fs_label"):
        if isinstance(source, dict) and source.get(key):
            yield Finding("PI209", _CLOUD, f"`{key}: {source[key]}` leads away from the seed")


def users(view: View, who: Who) -> Iterator[Finding]:
    """PI210, PI211: user-data makes nobody, and leaves /etc/hosts alone."""
    if not who.node:
        return
    data, _ = document(view, slots.USER_DATA)
    if data.get("manage_etc_hosts"):
        yield Finding(
            "PI210", slots.USER_DATA, "`manage_etc_hosts` rewrites /etc/hosts at every boot"
        )
    present = {line.split(":")[0] for line in view.text("/etc/passwd").splitlines()}
    listed = data.get("users") or []
    for user in listed if isinstance(listed, list) else [listed]:
        name = user.get("name") if isinstance(user, dict) else user
        if str(name) not in present:
            yield Finding("PI211", slots.USER_DATA, f"cloud-init would make the user `{name}`")


def host_key(view: View, who: Who) -> Iterator[Finding]:
    """PI207: private and public half belong together, and the certificate names the node."""
    if not who.node or slots.HOST_KEY not in view.root:
        return
    seen = view.root[slots.HOST_KEY]
    if seen.mode & _PRIVATE or seen.uid:
        yield Finding(
            "PI207",
            slots.HOST_KEY,
            f"sshd does not use a key that others may read ({seen.mode:04o}, {seen.uid}:{seen.gid})",
        )
    try:
        private = load_ssh_private_key((view.read(slots.HOST_KEY) or b"").strip() + b"\n", None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield Finding("PI207", slots.HOST_KEY, "it is no private key")
        return
    own = private.public_key()
    for path in (slots.HOST_PUBLIC, slots.HOST_CERTIFICATE):
        if path not in view.root:
            yield Finding("PI207", path, "it is missing")
            continue
        try:
            known = load_ssh_public_identity((view.read(path) or b"").strip())
        except (ValueError, UnsupportedAlgorithm):
            yield Finding("PI207", path, "it is no public key")
            continue
        certificate = known if isinstance(known, SSHCertificate) else None
        if (certificate.public_key() if certificate else known) != own:
            yield Finding("PI207", path, "it belongs to another private key")
        elif certificate:
            yield from _certified(path, certificate, view, who)


def _certified(path: str, certificate: SSHCertificate, view: View, who: Who) -> Iterator[Finding]:
    if who.node.encode() not in certificate.valid_principals:
        yield Finding("PI207", path, f"it is not for `{who.node}`")
    if not certificate.valid_after <= time.time() + _DAY:
        yield Finding("PI207", path, f"it begins to count on {_date(certificate.valid_after)} only")
    if certificate.valid_before < time.time():
        yield Finding("PI207", path, f"it has expired on {_date(certificate.valid_before)}")
    try:
        certificate.verify_cert_signature()
    except (InvalidSignature, UnsupportedAlgorithm):
        yield Finding("PI207", path, "its signature is wrong")
    signer = certificate.signature_key()
    text = signer.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().split()[1]
    authorities = [
        line
        for line in view.text(slots.KNOWN_HOSTS).splitlines()
        if line.startswith("@cert-authority")
    ]
    if authorities and not any(text in line for line in authorities):
        yield Finding("PI207", path, f"it is signed by none that {slots.KNOWN_HOSTS} trusts")


def _date(seconds: int) -> str:
    """The day; times that no clock shows stay numbers."""
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def names(view: View, who: Who) -> Iterator[Finding]:
    """PI221: the seed, /etc/hosts and the network speak of the same node."""
    if not who.node:
        return
    data, _ = document(view, slots.USER_DATA)
    meta, _ = document(view, slots.META_DATA)
    for path, name in (
        (slots.USER_DATA, data.get("hostname")),
        (slots.META_DATA, meta.get("local-hostname")),
    ):
        if name is not None and name != who.node:
            yield Finding("PI221", path, f"it calls the node `{name}`, the card is of `{who.node}`")
    known = hosts(view)
    if who.node not in known:
        yield Finding("PI221", slots.HOSTS, f"it has no line for `{who.node}`")
    for name, address in known.items():
        if ipaddress.ip_address(address).is_loopback and not name.startswith(("localhost", "ip6-")):
            yield Finding(
                "PI221", slots.HOSTS, f"`{name}` is {address}, which MPI takes for its address"
            )
    wired = addresses(view)
    if wired and who.node in known and wired != {known[who.node]}:
        words = f"`{who.node}` is {known[who.node]} there, and gets {', '.join(sorted(wired))}"
        yield Finding("PI221", slots.HOSTS, words)


def hosts(view: View) -> dict[str, str]:
    """Addresses by name, as /etc/hosts has them; lines that are none are left out."""
    found: dict[str, str] = {}
    for line in view.text(slots.HOSTS).splitlines():
        words = line.split("#", 1)[0].split()
        try:
            ipaddress.ip_address(words[0])
        except (IndexError, ValueError):
            continue
        for name in words[1:]:
            found.setdefault(name, words[0])
    return found


OF_NODE = (seed, users, host_key, names)
RULES = (seed_is_private, switches, settings)
