"""What single values must look like: names, addresses, keys, hashes.

Each check returns the value to keep, or raises `wrong(...)`, which `piimage.spec.messages` turns
into a diagnostic. No check repeats a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from piimage.report import shown
from piimage.spec.countries import COUNTRIES

if TYPE_CHECKING:
    from collections.abc import Callable

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
USERNAME = r"[a-z_][a-z0-9_-]{0,31}"
MAC = r"[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(\1[0-9A-Fa-f]{2}){4}"
SHA256 = r"[0-9a-f]{64}"
MAX_SSID = 32
#: A name has 253 characters at most (RFC 1035), and a host name of 63 and a dot go before this.
MAX_DOMAIN = 189
_MAC_DIGITS = 12

_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_KEY_LINE = re.compile(
    rf"(?:^|\s)({'|'.join(map(re.escape, _KEY_TYPES))})\s+([A-Za-z0-9+/]+={{0,3}})(?:\s|$)"
)
#: crypt(5): what pam_unix of current distributions checks; MD5 and DES are left out on purpose.
_B64 = "[./0-9A-Za-z]"
CRYPT = re.compile(
    rf"\$y\$[./0-9A-Za-z]+\${_B64}{{0,86}}\${_B64}{{43}}"
    rf"|\$gy\$[./0-9A-Za-z]+\${_B64}{{0,86}}\${_B64}{{43}}"
    rf"|\$7\${_B64}{{11,97}}\${_B64}{{43}}"
    rf"|\$6\$(rounds=[0-9]{{1,9}}\$)?{_B64}{{1,16}}\${_B64}{{86}}"
    rf"|\$5\$(rounds=[0-9]{{1,9}}\$)?{_B64}{{1,16}}\${_B64}{{43}}"
    rf"|\$2[abxy]\$[0-9]{{2}}\${_B64}{{53}}"
)
LOOKS_LIKE_CRYPT = re.compile(r"\$[0-9a-z]{1,3}\$")


def wrong(
    code: str, message: str, hint: str | None = None, at: tuple[str, ...] = ()
) -> PydanticCustomError:
    """An error to raise from a check; `at` are keys below the value that is checked."""
    words = {"message": message, "hint": hint, "at": at}
    return PydanticCustomError(code, "{message}", words)


def pattern(
    name: str, regex: str, allowed: str, fix: Callable[[str], str] | None = None
) -> Callable[[str], str]:
    """A check that the whole text matches `regex`; `fix` proposes a text that does."""
    compiled = re.compile(regex)

    def check(value: str) -> str:
        if compiled.fullmatch(value):
            return value
        proposal = fix(value) if fix else ""
        good = proposal and compiled.fullmatch(proposal)
        hint = f"did you mean {shown(proposal)}?" if good else None
        raise wrong(name.replace(" ", "-"), f"{shown(value)} is not a {name}: {allowed}", hint)

    return check


def hostname(value: str) -> str:
    """An RFC 1123 label in lower case that cannot be taken for an address or a node's number."""
    if value.isascii() and value.isdigit():
        hint = f"did you mean {shown('node' + value)}?"
        raise wrong(
            "hostname", f"{shown(value)} is all digits and would be read as an address", hint
        )
    if value == "localhost":
        raise wrong(
            "hostname", "`localhost` is every node's name for itself", "choose another name"
        )
    return _label(value)


_label = pattern(
    "hostname",
    LABEL,
    "up to 63 lower-case letters, digits and inner `-`",
    lambda text: re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-"),
)


def domain(value: str) -> str:
    """A DNS name: labels joined by dots."""
    labels = value.split(".")
    if len(value) > MAX_DOMAIN or not all(re.fullmatch(LABEL, label) for label in labels):
        message = f"{shown(value)} is not a domain: lower-case labels joined by dots are wanted"
        raise wrong("domain", message, "for example `cluster.internal`")
    return value


def server(value: str) -> str:
    """A host to ask for the time: a DNS name or an address."""
    for kind in (IPv4Address, IPv6Address):
        try:
            return str(kind(value))
        except AddressValueError:
            continue
    if re.fullmatch(r"[0-9.]+", value):
        raise wrong("address", f"{shown(value)} is not an IPv4 address")
    return domain(value)


def username(value: str) -> str:
    """A name that useradd of every distribution accepts."""
    return _username(value)


_username = pattern(
    "user name",
    USERNAME,
    "up to 32 lower-case letters, digits, `_` and `-`, the first a letter or `_`",
    lambda text: re.sub(r"[^a-z0-9_-]+", "", text.lower())[:32],
)


def mac(value: str) -> str:
    """An Ethernet address, as lower-case hex pairs joined by colons."""
    if not re.fullmatch(MAC, value):
        digits = re.sub(r"[^0-9A-Fa-f]", "", value).lower()
        pairs = ":".join(digits[i : i + 2] for i in range(0, 12, 2))
        whole = len(digits) == _MAC_DIGITS
        hint = f"did you mean `{pairs}`?" if whole else "for example `dc:a6:32:01:02:03`"
        message = f"{shown(value)} is not a MAC address: six pairs of hex digits joined by `:`"
        raise wrong("mac", message, hint)
    value = value.replace("-", ":").lower()
    if int(value[:2], 16) & 1:
        raise wrong("mac", f"{shown(value)} is a group address, which no board has")
    if value == "00:00:00:00:00:00":
        raise wrong(
            "mac", f"{shown(value)} is a placeholder", "leave `mac` out if you do not know it"
        )
    return value


def address(value: str) -> IPv4Address:
    """An IPv4 address without prefix."""
    if "/" in value:
        bare = value.split("/", maxsplit=1)[0]
        hint = f"write {shown(bare)}; the prefix comes from `network.wired.subnet`"
        raise wrong("address", f"{shown(value)} has a prefix, which does not belong here", hint)
    if ":" in value:
        raise wrong("address", f"{shown(value)} is not an IPv4 address; IPv6 is not supported yet")
    try:
        return IPv4Address(value)
    except AddressValueError:
        raise wrong("address", f"{shown(value)} is not an IPv4 address", _ADDRESS) from None


_ADDRESS = "four numbers from 0 to 255 joined by dots, without leading zeros"
_SMALLEST = 30


def subnet(value: str) -> IPv4Network:
    """A network that a wire of two or more nodes can have."""
    if ":" in value:
        hint = "for example `10.1.10.0/24`"
        raise wrong(
            "subnet", f"{shown(value)} is not an IPv4 subnet; IPv6 is not supported yet", hint
        )
    if "/" not in value:
        raise wrong(
            "subnet",
            f"{shown(value)} has no prefix length",
            f"did you mean {shown(value + '/24')}?",
        )
    try:
        network = IPv4Network(value, strict=False)
    except ValueError:
        network = None
    if network is None:
        hint = "for example `10.1.10.0/24`"
        raise wrong("subnet", f"{shown(value)} is not an IPv4 subnet", hint)
    if value.rpartition("/")[2] != str(network.prefixlen):
        hint = f"did you mean `{network}`?"
        raise wrong("subnet", f"{shown(value)} has no plain prefix length", hint)
    if value.partition("/")[0] != str(network.network_address):
        hint = f"did you mean `{network}`?"
        raise wrong("subnet", f"{shown(value)} is an address inside a subnet, not a subnet", hint)
    if network.prefixlen > _SMALLEST:
        raise wrong(
            "subnet", f"a /{network.prefixlen} has no room for two nodes", "use /30 or larger"
        )
    if network.is_loopback or network.is_link_local or network.is_multicast or network.is_reserved:
        hint = "use a private one such as `10.1.10.0/24`"
        raise wrong("subnet", f"{shown(value)} is set aside for other uses", hint)
    if network.network_address in IPv4Network("0.0.0.0/8") or network.prefixlen < _SMALLEST_PREFIX:
        raise wrong(
            "subnet", f"{shown(value)} is too large", "use /8 or smaller, `10.0.0.0/8` at most"
        )
    return network


_SMALLEST_PREFIX = 8


def ssid(value: str) -> str:
    """A network name of 1 to 32 bytes of UTF-8 (IEEE 802.11)."""
    size = len(value.encode())
    if not 1 <= size <= MAX_SSID:
        raise wrong("ssid", f"an SSID has 1 to {MAX_SSID} bytes, but this one has {size}")
    if "\n" in value or "\t" in value:
        raise wrong("ssid", "an SSID has no tab or newline")
    return value


def country(value: str) -> str:
    """An ISO 3166 alpha-2 code, which decides the allowed radio channels."""
    if value in COUNTRIES:
        return value
    upper = {"UK": "GB", "EN": "GB", "EL": "GR"}.get(value.upper(), value.upper())
    hint = f"did you mean `{upper}`?" if upper in COUNTRIES else "for example `IT`, `DE`, `US`"
    raise wrong("country", f"{shown(value)} is not a two-letter ISO 3166 country code", hint)


def ssh_key_line(line: str) -> str:
    """One line as in authorized_keys; options before the key are kept."""
    if "PRIVATE KEY" in line:
        raise wrong(
            "ssh-key", "this is a private key", "give the `.pub` file; keep this one to yourself"
        )
    if "\n" in line.strip():
        raise wrong("ssh-key", "a key must be one line", "give each key as its own list entry")
    found = _KEY_LINE.search(line)
    hint = f"a line starts with one of {', '.join(_KEY_TYPES[:3])}..., or use `file:PATH`"
    if found is None:
        raise wrong("ssh-key", "this is not an ssh public key line", hint)
    try:
        blob = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        blob = b""
    name = found[1].encode()
    if not blob.startswith(len(name).to_bytes(4) + name) or len(blob) < len(name) + 20:
        raise wrong(
            "ssh-key", "the ssh public key is damaged", "copy the whole line of the `.pub` file"
        )
    return line.strip()


def crypt_hash(value: str) -> str:
    """A crypt(5) hash of a kind that current distributions still accept at login."""
    if CRYPT.fullmatch(value):
        return value
    hint = "make one with `mkpasswd -m yescrypt` or `openssl passwd -6`"
    if value.startswith("$1$") or re.fullmatch(rf"{_B64}{{13}}", value):
        raise wrong("hash", "MD5 and DES password hashes are not safe and not accepted", hint)
    if LOOKS_LIKE_CRYPT.match(value):
        raise wrong("hash", "the password hash is cut off or has characters too many", hint)
    raise wrong(
        "hash", "this is not a crypt(5) hash: `$y$`, `$6$`, `$5$` or `$2b$` is wanted", hint
    )
