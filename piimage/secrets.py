"""References of cluster.yaml followed to what they mean: hashes, keys, passphrases. Values never leave in an error."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passlib.hash import sha512_crypt

from piimage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.cluster import Cluster, SecretRef

_HEX_PSK = re.compile(r"[0-9a-fA-F]{64}")
#: Rounds of sha512crypt for passwords given in clear: about 0.1 s on a laptop, the same on a board at login.
_ROUNDS = 100_000


def reveal(reference: SecretRef, env: Mapping[str, str], what: str) -> str:
    """The secret behind a reference; raises `ConfigError` naming `what` and the reference, never the value."""
    if reference.kind in ("hash", "clear"):
        return reference.value
    if reference.kind == "env":
        if not env.get(reference.value):
            raise ConfigError(
                f"the environment variable `{reference.value}` for {what} is not set",
                hint=f"`export {reference.value}=...` before building",
            )
        return env[reference.value]
    try:
        text = Path(reference.value).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the file `{reference.value}` for {what} cannot be read: {error.strerror}"
        ) from error
    return text.rstrip("\n")


def password_hashes(
    cluster: Cluster, env: Mapping[str, str], known: Mapping[str, str]
) -> dict[str, str]:
    """User name (and `root`) -> crypt(5) hash; users without a password are left out.

    A clear text that still matches its hash in `known` keeps it, so that a rebuild gives the same bytes.
    """
    wanted = {user.name: user.password for user in cluster.users}
    wanted["root"] = cluster.root_password
    hashes = {}
    for name, reference in wanted.items():
        if reference is None:
            continue
        secret = reveal(reference, env, f"the password of `{name}`")
        if secret.startswith("$"):
            hashes[name] = secret
        elif (
            name in known
            and known[name].startswith("$6$")
            and sha512_crypt.verify(secret, known[name])
        ):
            hashes[name] = known[name]
        else:
            hashes[name] = _hashed(secret)
    return hashes


def _hashed(secret: str) -> str:
    """A new sha512crypt hash of a clear text."""
    handler: Any = sha512_crypt  # its stubs do not know `using`
    return str(handler.using(rounds=_ROUNDS).hash(secret))


def wifi_psk(cluster: Cluster, env: Mapping[str, str]) -> str | None:
    """The pre-shared key as 64 hex digits (IEEE 802.11i: PBKDF2-SHA1 over the SSID, 4096 rounds), or None."""
    if cluster.wifi is None:
        return None
    secret = reveal(cluster.wifi.psk, env, "the Wi-Fi passphrase")
    if _HEX_PSK.fullmatch(secret):
        return secret.lower()
    if not 8 <= len(secret.encode()) <= 63 or not secret.isascii():  # noqa: PLR2004 -- IEEE 802.11i
        raise ConfigError("the Wi-Fi passphrase must be 8 to 63 ASCII characters, or 64 hex digits")
    return hashlib.pbkdf2_hmac("sha1", secret.encode(), cluster.wifi.ssid.encode(), 4096, 32).hex()


def authorized_keys(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """User name -> public key lines, from `file:` references and keys written out."""
    found = {}
    for user in cluster.users:
        lines: list[str] = []
        for key in user.ssh_keys:
            if key.kind == "key":
                lines.append(key.value)
            elif key.kind == "file":
                lines += _key_file(Path(key.value), user.name)
        found[user.name] = tuple(dict.fromkeys(lines))
    return found


def _key_file(path: Path, user: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the ssh key `{path}` of `{user}` cannot be read: {error.strerror}",
            hint="`ssh-keygen -t ed25519` makes one",
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
