"""References of cluster.yaml followed to what they mean: hashes, keys, passphrases. Values never leave in an error."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passlib.hash import sha512_crypt

from piimage.errors import ConfigError
from piimage.spec.fields import CRYPT
from piimage.spec.references import passphrase_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.cluster import Cluster, SecretRef
    from piimage.state.imported_keys import Pin

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
    except UnicodeDecodeError:  # its own words and its trace would hold the content
        raise ConfigError(f"the file `{reference.value}` for {what} is not text") from None
    return text.rstrip("\r\n")


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
        # A clear text may begin with `$`: only what crypt(5) understands is a hash.
        if reference.kind == "hash" or (reference.kind != "clear" and CRYPT.fullmatch(secret)):
            hashes[name] = secret
            continue
        if not secret.strip() or "\0" in secret or "\n" in secret:
            raise ConfigError(f"the password of `{name}` is empty, or has more than one line")
        hashes[name] = known[name] if _matches(secret, known.get(name, "")) else _hashed(secret)
    return hashes


def _matches(secret: str, known: str) -> bool:
    usable = CRYPT.fullmatch(known) is not None and known.startswith("$6$")
    return usable and sha512_crypt.verify(secret, known)


def _hashed(secret: str) -> str:
    """A new sha512crypt hash of a clear text."""
    handler: Any = sha512_crypt  # its stubs do not know `using`
    return str(handler.using(rounds=_ROUNDS).hash(secret))


def wifi_psk(cluster: Cluster, env: Mapping[str, str]) -> str | None:
    """The pre-shared key as 64 hex digits (IEEE 802.11i: PBKDF2-SHA1 over the SSID, 4096 rounds), or None."""
    if cluster.wifi is None or not any(node.role.wifi for node in cluster.nodes):
        return None
    secret = reveal(cluster.wifi.psk, env, "the Wi-Fi passphrase")
    if _HEX_PSK.fullmatch(secret):
        return secret.lower()
    problem = passphrase_problem(secret)
    if problem:
        raise ConfigError(problem)
    return hashlib.pbkdf2_hmac("sha1", secret.encode(), cluster.wifi.ssid.encode(), 4096, 32).hex()


def authorized_keys(cluster: Cluster, imported: Mapping[str, Pin]) -> dict[str, tuple[str, ...]]:
    """User name -> public key lines; `imported` has those of every `gh:NAME` and `lp:NAME`."""
    found = {}
    for user in cluster.users:
        lines: list[str] = []
        for key in user.ssh_keys:
            if key.kind == "key":
                lines.append(key.value)
            elif key.kind == "file":
                lines += _key_file(Path(key.value), user.name)
            else:
                lines += imported[f"{key.kind}:{key.value}"].keys
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
    except UnicodeDecodeError:
        raise ConfigError(f"the ssh key `{path}` of `{user}` is not text") from None
    if "PRIVATE KEY" in text:
        raise ConfigError(
            f"`{path}` of `{user}` is a private key", hint=f"did you mean `{path}.pub`?"
        )
    return [
        line.strip()
        for line in text.splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
