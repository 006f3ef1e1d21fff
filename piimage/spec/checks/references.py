"""Secrets and keys that lie elsewhere: there, readable, of the right form. And secrets in clear."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from piimage.report import shown
from piimage.spec.fields import CRYPT, LOOKS_LIKE_CRYPT, ssh_key_line
from piimage.spec.paths import located
from piimage.spec.references import passphrase_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.cluster import SecretRef
    from piimage.spec.checks.outside import Outside
    from piimage.spec.draft import Draft
    from piimage.spec.place import FieldPath

_MAX_BYTES = 64 << 10
_MAX_SHOWN = 500
_WITHOUT = "`piimage validate --no-secrets` checks without it"
_PSK_HASH = re.compile(r"[0-9a-fA-F]{64}")
_CURES = {
    "password": "write `{hash: ...}` as `mkpasswd -m yescrypt` prints it, or `env:NAME`",
    "psk": "write the 64 hex digits that `wpa_passphrase SSID` prints, or `env:NAME`",
}


def check(draft: Draft, outside: Outside) -> None:
    """Add what is wrong with secrets and ssh keys."""
    for path, ref in _secrets(draft):
        if ref.kind == "clear":
            kind = "Wi-Fi passphrase" if path[-1] == "psk" else "password"
            message = f"a {kind} in clear: whoever reads this file has it"
            draft.warning(path, message, _CURES[str(path[-1])], "clear-secret")
        elif outside.check_secrets and ref.kind in {"env", "file"}:
            _secret(draft, outside, path, ref)
    if outside.check_secrets:
        for number, user in enumerate(draft.spec.users):
            for index, key in enumerate(user.ssh_keys):
                if key.kind == "file":
                    _key_file(draft, outside, ("users", number, "ssh_keys", index), key.value)


def _secrets(draft: Draft) -> Iterator[tuple[FieldPath, SecretRef]]:
    for number, user in enumerate(draft.spec.users):
        if user.password is not None:
            yield ("users", number, "password"), user.password
    if draft.spec.root.password is not None:
        yield ("root", "password"), draft.spec.root.password
    wifi = draft.spec.network.wifi
    if wifi is not None:
        yield ("network", "wifi", "psk"), wifi.psk


def _secret(draft: Draft, outside: Outside, path: FieldPath, ref: SecretRef) -> None:
    if ref.kind == "env":
        text = outside.env.get(ref.value)
        if not text:
            state = "is not set" if text is None else "is empty"
            hint = f"`read -rs {ref.value}; export {ref.value}` sets it; {_WITHOUT}"
            draft.error(
                path, f"the environment variable {shown(ref.value)} {state}", hint, "no-secret"
            )
            return
        where = f"the environment variable {shown(ref.value)}"
    else:
        found = _read(draft, outside, path, ref.value, private=True)
        if found is None:
            return
        text, where = found, f"the file {shown(ref.value)}"
    problem = _problem(text.rstrip("\r\n"), "psk" if path[-1] == "psk" else "password")
    if problem:
        draft.error(path, f"{where}: {problem}", code="bad-secret")


def _problem(text: str, kind: str) -> str | None:
    """What is wrong with a secret's text, without repeating it."""
    if kind == "psk":
        return None if _PSK_HASH.fullmatch(text) else passphrase_problem(text)
    if not text.strip():
        return "a password cannot be empty"
    if "\n" in text or "\0" in text:
        return "a password has one line"
    if LOOKS_LIKE_CRYPT.match(text) and not CRYPT.fullmatch(text):
        return "the password hash is cut off or of a kind that is not accepted"
    return None


def _read(
    draft: Draft, outside: Outside, path: FieldPath, name: str, *, private: bool
) -> str | None:
    """The file's text; None when it cannot be had, which is then reported."""
    file = located(name, outside.directory, outside.env)
    hint = f"looked for {shown(file, _MAX_SHOWN)}; {_WITHOUT}"
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            draft.error(path, f"{shown(name)} is not a file", hint, "no-secret")
            return None
        with file.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        text = data.decode()
    except FileNotFoundError:
        draft.error(path, f"there is no file {shown(name)}", hint, "no-secret")
        return None
    except UnicodeDecodeError:
        draft.error(path, f"{shown(name)} is not text", hint, "bad-secret")
        return None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "the name is not valid").lower()
        draft.error(path, f"{shown(name)} cannot be read: {reason}", hint, "no-secret")
        return None
    if len(data) > _MAX_BYTES:
        draft.error(path, f"{shown(name)} is larger than 64 KiB", hint, "bad-secret")
        return None
    if private and status.st_mode & 0o077:
        message = f"others on this machine can read {shown(name)}"
        draft.warning(path, message, f"`chmod 600 {name}`", "open-secret")
    return text


def _key_file(draft: Draft, outside: Outside, path: FieldPath, name: str) -> None:
    text = _read(draft, outside, path, name, private=False)
    if text is None:
        return
    if "PRIVATE KEY" in text:
        hint = f"did you mean {shown(f'file:{name}.pub')}?"
        draft.error(path, f"{shown(name)} is a private key", hint, "ssh-key")
        return
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        draft.error(path, f"{shown(name)} holds no key", code="ssh-key")
    for line in lines:
        try:
            ssh_key_line(line)
        except ValueError as error:
            words = getattr(error, "context", None) or {}
            draft.error(path, f"{shown(name)}: {words['message']}", words["hint"], "ssh-key")
