"""A small repository of RPM packages, made by the distribution's own tools, with keys that live as long as a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """\
Name: {name}
Version: 1.2
Release: 3
Summary: {name}, for a test
License: Apache-2.0
{tags}
%description
{name}
{sections}
%files
{files}
"""


@dataclass
class Repository:
    """`home` has `served/` (packages and metadata) and a keyring per name of a key."""

    home: Path
    keys: dict[str, Path] = field(default_factory=dict)

    @property
    def served(self) -> Path:
        return self.home / "served"

    def key(self, name: str) -> Path:
        """The public key of that name, made when it is first asked for."""
        if name not in self.keys:
            ring = self.home / f"ring-{name}"
            ring.mkdir(mode=0o700, parents=True)
            gpg = ("gpg", "--homedir", ring, "--batch", "--quiet")
            words = (
                "--passphrase",
                "",
                "--quick-gen-key",
                f"{name} <{name}@example.org>",
                "rsa3072",
                "sign",
                "never",
            )
            _run(*gpg, *words)
            public = self.home / f"KEY-{name}"
            public.write_bytes(_run(*gpg, "--armor", "--export"))
            self.keys[name] = public
        return self.keys[name]

    def add(
        self,
        name: str,
        *,
        tags: str = "",
        sections: str = "",
        files: str = "",
        key: str | None = "lab",
        architecture: str = "aarch64",
    ) -> Path:
        """Build a package and sign it with `key`; `tags`, `sections` and `files` are lines of its spec."""
        place = self.home / "build"
        place.mkdir(exist_ok=True)
        spec = place / f"{name}.spec"
        spec.write_text(SPEC.format(name=name, tags=tags, sections=sections, files=files))
        _run(
            "rpmbuild",
            "--quiet",
            "--target",
            architecture,
            "--define",
            f"_topdir {place}",
            "--define",
            "_build_id_links none",
            "--define",
            "__os_install_post %{nil}",
            "-bb",
            spec,
        )
        (built,) = (place / "RPMS" / architecture).glob(f"{name}-1.2-3*.rpm")
        if key is not None:
            self.key(key)
            ring = self.home / f"ring-{key}"
            _run(
                "rpmsign",
                "--define",
                f"__gpg {shutil.which('gpg')}",
                "--define",
                f"_gpg_name {key}@example.org",
                "--addsign",
                built,
                GNUPGHOME=str(ring),
            )
        self.served.mkdir(exist_ok=True)
        return built.rename(self.served / built.name)

    def index(self) -> None:
        """Write the metadata of all that is served."""
        _run("createrepo_c", "--quiet", "--checksum", "sha256", self.served)


def _run(*argv: object, **more: str) -> bytes:
    done = subprocess.run(
        list(map(str, argv)), capture_output=True, check=False, env={**os.environ, **more}
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout
