"""OpenPGP keys of the tests' own: made once, used to sign, and their agent ended."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Signer:
    """A key pair by name, in a home of its own below `/tmp`: the agent's socket wants a short path."""

    def __init__(
        self, home: str, name: str, *, expires: str = "never", at: str | None = None
    ) -> None:
        self.home, self.name = home, name
        self.clock = ["--faked-system-time", f"{at}!"] if at else []
        self._gpg(
            "--passphrase",
            "",
            "--quick-gen-key",
            f"{name} <{name}@example.org>",
            "ed25519",
            "sign",
            expires,
        )
        colons = self._gpg("--with-colons", "--list-keys", f"{name}@example.org").decode()
        self.fingerprint = next(
            line.split(":")[9] for line in colons.splitlines() if line.startswith("fpr:")
        )

    def public(self, *, armor: bool = False) -> bytes:
        """The key file."""
        words = ["--armor"] if armor else []
        return self._gpg(*words, "--export", self.fingerprint)

    def secret(self) -> bytes:
        """What should not be in a key file."""
        return self._gpg("--export-secret-keys", self.fingerprint)

    def detached(self, data: bytes, *how: str) -> bytes:
        """A detached signature."""
        return self._gpg("-u", self.fingerprint, *how, "--detach-sign", data=data)

    def clear(self, data: bytes) -> bytes:
        """A clear-signed text."""
        return self._gpg("-u", self.fingerprint, "--clearsign", data=data)

    def inline(self, data: bytes) -> bytes:
        """A message with its signature in it."""
        return self._gpg("-u", self.fingerprint, "--sign", data=data)

    def _gpg(self, *words: str, data: bytes | None = None) -> bytes:
        argv = ["gpg", "--homedir", self.home, "--batch", "--quiet", *self.clock, *words]
        return subprocess.run(
            argv, input=data, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ).stdout


@contextmanager
def signers(*names: str) -> Iterator[list[Signer]]:
    """A signer for each name."""
    home = tempfile.mkdtemp(prefix="pgp-", dir="/tmp")
    try:
        yield [Signer(home, name) for name in names]
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
        shutil.rmtree(home, ignore_errors=True)
