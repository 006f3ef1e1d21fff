"""Values that point elsewhere: secrets, ssh keys, bases; `checks.references` looks behind them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from piimage.cluster import KeyRef, SecretRef
from piimage.report import shown
from piimage.spec.fields import LOOKS_LIKE_CRYPT, SHA256, crypt_hash, ssh_key_line, wrong

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PSK_HASH = re.compile(r"[0-9a-fA-F]{64}")
_IMPORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_CATALOG = re.compile(r"[a-z0-9][a-z0-9._-]*")
MIN_PASSPHRASE, MAX_PASSPHRASE = 8, 63

_ACCOUNT_FORMS = "write `locked`, `env:NAME`, `file:PATH` or `{hash: ...}`"
_PSK_FORMS = "write `env:NAME`, `file:PATH` or the 64 hex digits that `wpa_passphrase` prints"
LOCKED = SecretRef("locked", "")


@dataclass(frozen=True, slots=True)
class BaseRef:
    """The image to start from: `kind` is `name` (of the catalog), `path` or `url`."""

    kind: str
    value: str
    sha256: str | None = None


def _text_or_mapping(value: object, what: str, forms: str) -> None:
    if value is None:
        raise wrong("empty", f"{what} is empty", forms)
    if isinstance(value, (bool, int, float)):
        message = f"{what} must be text, but this is read as a number or a truth value"
        raise wrong("text", message, f"put it in quotes, or better: {forms}")
    if not isinstance(value, (str, dict)):
        raise wrong("reference", f"{what} must be text or `{{hash: ...}}`", forms)


def _only_hash(value: dict[str, Any], what: str, forms: str) -> str:
    """The hash of `{hash: ...}`."""
    for key in value:
        if key != "hash":
            hint = "the only key here is `hash`"
            raise wrong("unknown-key", f"{shown(key)} is not a field of {what}", hint, (key,))
    if not isinstance(value.get("hash"), str):
        if isinstance(value.get("hash"), int):
            raise wrong("text", "a hash must be text", "put it in quotes", ("hash",))
        raise wrong("hash", f"{what} has no hash", forms)
    return str(value["hash"])


def _pointer(value: str) -> SecretRef | None:
    """`env:NAME` or `file:PATH`, else None."""
    kind, colon, rest = value.partition(":")
    if not colon or kind not in {"env", "file"}:
        return None
    if kind == "env" and not _VARIABLE.fullmatch(rest):
        message = f"{shown(rest)} is not the name of an environment variable"
        raise wrong("reference", message, "letters, digits and `_`, as in `env:PI_WIFI_PSK`")
    if kind == "file" and not rest.strip():
        raise wrong("reference", "`file:` names no file", "for example `file:~/secrets/psk`")
    return SecretRef(kind, rest)


def password(value: object) -> SecretRef:
    """`locked`, `env:NAME`, `file:PATH`, `{hash: ...}`, or (warned of later) the password."""
    _text_or_mapping(value, "a password", _ACCOUNT_FORMS)
    if isinstance(value, dict):
        text = _only_hash(value, "a password", _ACCOUNT_FORMS)
        try:
            return SecretRef("hash", crypt_hash(text))
        except PydanticCustomError as error:
            words = error.context or {}
            raise wrong("hash", words["message"], words["hint"], ("hash",)) from None
    text = str(value)
    if text == "locked":
        return LOCKED
    found = _pointer(text)
    if found is not None:
        return found
    if not text:
        raise wrong("empty", "a password cannot be empty", _ACCOUNT_FORMS)
    if LOOKS_LIKE_CRYPT.match(text):
        raise wrong("hash", "a hash stands where a password is wanted", 'write `{hash: "..."}`')
    if "\n" in text:
        raise wrong("password", "a password has one line", _ACCOUNT_FORMS)
    return SecretRef("clear", text)


def psk(value: object) -> SecretRef:
    """`env:NAME`, `file:PATH`, 64 hex digits, `{hash: ...}`, or (warned of later) a passphrase."""
    _text_or_mapping(value, "a Wi-Fi key", _PSK_FORMS)
    if isinstance(value, dict):
        digits = _only_hash(value, "a Wi-Fi key", _PSK_FORMS)
        if not _PSK_HASH.fullmatch(digits):
            raise wrong("psk", "a Wi-Fi key's hash has 64 hex digits", _PSK_FORMS, ("hash",))
        return SecretRef("hash", digits.lower())
    text = str(value)
    if _PSK_HASH.fullmatch(text):
        return SecretRef("hash", text.lower())
    found = _pointer(text)
    if found is not None:
        return found
    problem = passphrase_problem(text)
    if problem:
        raise wrong("psk", problem, _PSK_FORMS)
    return SecretRef("clear", text)


def passphrase_problem(text: str) -> str | None:
    """What is wrong with a WPA passphrase (IEEE 802.11: 8 to 63 printable ASCII characters)."""
    if not MIN_PASSPHRASE <= len(text) <= MAX_PASSPHRASE:
        return f"a Wi-Fi passphrase has 8 to 63 characters, but this one has {len(text)}"
    if not (text.isascii() and text.isprintable()):
        return "a Wi-Fi passphrase holds printable ASCII characters only"
    return None


def ssh_key(value: object) -> KeyRef:
    """`file:PATH`, `gh:NAME`, `lp:NAME` or a public key line."""
    if not isinstance(value, str):
        raise wrong("text", "an ssh key must be text", "write `file:PATH`, `gh:NAME` or a key line")
    kind, colon, rest = value.partition(":")
    if colon and kind in {"gh", "lp"}:
        if not _IMPORT_NAME.fullmatch(rest):
            site = {"gh": "GitHub", "lp": "Launchpad"}[kind]
            raise wrong(
                "ssh-key", f"{shown(rest)} is not a {site} name", f"for example `{kind}:someone`"
            )
        return KeyRef(kind, rest)
    if colon and kind == "file":
        if not rest.strip():
            raise wrong(
                "ssh-key", "`file:` names no file", "for example `file:~/.ssh/id_ed25519.pub`"
            )
        return KeyRef("file", rest)
    return KeyRef("key", ssh_key_line(value))


def base(value: object) -> BaseRef:
    """A catalog name, a path, or `{path|url: ..., sha256: ...}`."""
    if isinstance(value, dict):
        return _base_mapping(value)
    if not isinstance(value, str) or not value:
        hint = "for example `debian-13`, or `./image.img.xz`"
        raise wrong("base", "a base is a catalog name or the path of an image", hint)
    if "://" in value:
        raise wrong(
            "base", "a URL needs the digest of what it names", "write `{url: ..., sha256: ...}`"
        )
    if "/" in value or re.search(r"\.(img|qcow2|zip|xz|gz|zst)\Z", value):
        return BaseRef("path", value)
    if not _CATALOG.fullmatch(value):
        hint = "`piimage base list` shows the names; a path holds a `/`"
        raise wrong("base", f"{shown(value)} is neither a catalog name nor a path", hint)
    return BaseRef("name", value)


def _base_mapping(value: dict[str, Any]) -> BaseRef:
    forms = "write `{path: ..., sha256: ...}` or `{url: ..., sha256: ...}`"
    for key in value:
        if key not in {"path", "url", "sha256"}:
            raise wrong("unknown-key", f"{shown(key)} is not a field of a base", forms, (key,))
    kinds = [kind for kind in ("path", "url") if kind in value]
    if len(kinds) != 1 or not isinstance(value[kinds[0]], str) or not value[kinds[0]]:
        raise wrong("base", "a base has either a `path` or a `url`", forms)
    digest = value.get("sha256")
    if digest is None and kinds[0] == "url":
        raise wrong("base", "a URL needs the digest of what it names", forms)
    if digest is not None and not re.fullmatch(SHA256, str(digest).lower()):
        raise wrong(
            "sha256", "a sha256 has 64 hex digits", "`sha256sum FILE` prints it", ("sha256",)
        )
    if kinds[0] == "url" and not re.match(r"https?://[^/\s]+/\S+\Z", value["url"]):
        raise wrong(
            "url", f"{shown(value['url'])} is not a web address", "http:// or https://", ("url",)
        )
    return BaseRef(kinds[0], value[kinds[0]], str(digest).lower() if digest else None)


_HASH_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"hash": {"type": "string"}},
    "required": ["hash"],
    "additionalProperties": False,
}
Password = Annotated[
    SecretRef,
    PlainValidator(password),
    WithJsonSchema({"anyOf": [{"type": "string"}, _HASH_SCHEMA]}),
]
Psk = Annotated[
    SecretRef,
    PlainValidator(psk),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 5}, _HASH_SCHEMA]}),
]
SshKey = Annotated[
    KeyRef,
    PlainValidator(ssh_key),
    WithJsonSchema({"type": "string", "pattern": r"^(file:|gh:|lp:|.*(ssh|ecdsa|sk)-).+"}),
]
Base = Annotated[
    BaseRef,
    PlainValidator(base),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "object",
                    "properties": {
                        "path": {"type": "string"},
                        "url": {"type": "string"},
                        "sha256": {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
                    },
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
