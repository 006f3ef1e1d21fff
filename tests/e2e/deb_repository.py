"""A small archive of Debian packages, signed with a key that lives as long as a test."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CONTROL = """\
Package: {name}
Version: 1.2-3
Architecture: {architecture}
Maintainer: A Test <test@example.org>
Installed-Size: 1
{more}Description: {name}, for a test
"""
SOURCES = """\
Types: deb
URIs: http://127.0.0.1:{port}/
Suites: lab
Components: main
Signed-By: /usr/share/keyrings/lab.gpg
"""


@dataclass
class Repository:
    """`home` has `served/` and a keyring per name of a key; while `down` nothing is served."""

    home: Path
    down: bool = False
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def served(self) -> Path:
        return self.home / "served"

    def key(self, name: str) -> Path:
        """The public key of that name, made when it is first asked for."""
        public = self.home / f"{name}.gpg"
        if not public.exists():
            (self.home / f"ring-{name}").mkdir(mode=0o700)
            words = ("--quick-gen-key", f"{name} <{name}@example.org>", "rsa3072", "sign", "never")
            self._gpg(name, "--passphrase", "", *words)
            public.write_bytes(self._gpg(name, "--export"))
        return public

    def add(
        self,
        name: str,
        *,
        architecture: str = "arm64",
        more: str = "",
        files: Mapping[str, str] | None = None,
        **scripts: str,
    ) -> None:
        """A package: `more` are lines of its control file, `files` contents by path, `scripts` bodies by name."""
        tree = self.home / "build" / name
        (tree / "DEBIAN").mkdir(parents=True)
        control = _CONTROL.format(name=name, architecture=architecture, more=more)
        (tree / "DEBIAN/control").write_text(control)
        for script, body in scripts.items():
            place = tree / "DEBIAN" / script
            place.write_text(f"#!/bin/sh\nset -e\n{body}\n")
            place.chmod(0o755)
        for path, content in {f"/opt/lab/{name}": name, **(files or {})}.items():
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
            place.chmod(0o755 if content.startswith("#!") else 0o644)
        self.served.mkdir(exist_ok=True)
        file = f"{name}_1.2-3_{architecture}.deb"
        _run("dpkg-deb", "--root-owner-group", "--build", tree, self.served / file)
        data = (self.served / file).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        self.packages[name] = f"{control}Filename: {file}\nSize: {len(data)}\nSHA256: {digest}\n"

    def index(self, key: str = "lab") -> None:
        """Write the indices, signed with `key`."""
        place = self.served / "dists/lab/main/binary-arm64"
        place.mkdir(parents=True, exist_ok=True)
        text = "\n".join(self.packages.values()).encode()
        (place / "Packages").write_bytes(text)
        digest = hashlib.sha256(text).hexdigest()
        release = self.served / "dists/lab/Release"
        release.write_text(
            "Origin: lab\nSuite: lab\nCodename: lab\nArchitectures: arm64\nComponents: main\n"
            "Date: Sat, 31 Jan 2026 12:00:00 UTC\n"
            f"SHA256:\n {digest} {len(text)} main/binary-arm64/Packages\n"
        )
        signed = release.with_name("InRelease")
        signed.unlink(missing_ok=True)
        self.key(key)
        self._gpg(key, "--output", signed, "--clearsign", release)

    def serve(self) -> http.server.ThreadingHTTPServer:
        """A server on a port of 127.0.0.1 that nobody has, running until its `shutdown`."""
        self.served.mkdir(exist_ok=True)
        handler = functools.partial(_Handler, repository=self, directory=str(self.served))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def _gpg(self, name: str, *words: str | Path) -> bytes:
        return _run("gpg", "--homedir", self.home / f"ring-{name}", "--batch", "--quiet", *words)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *asked: Any, repository: Repository, directory: str) -> None:
        self.repository = repository
        super().__init__(*asked, directory=directory)

    def do_GET(self) -> None:
        """As always, unless the archive is down."""
        if self.repository.down:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_words: object) -> None:
        """Nothing."""


def _run(*argv: str | Path) -> bytes:
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout
