"""RPM packages, resolved and fetched by the host's dnf against the image's own repositories, and checked by rpmkeys."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

from piimage.bake import lock
from piimage.bake.dnf_root import write_root
from piimage.bake.lock import Layer, Package, Step
from piimage.bases.rpm_database import DEBIAN_NAMES
from piimage.disk.atomic import full_disk
from piimage.errors import (
    ConfigError,
    MissingToolError,
    PiimageError,
    ToolFailedError,
    UnsupportedError,
    VerifyError,
    WriteFailedError,
)
from piimage.report import shown
from piimage.run import PIPE, failure, process, require, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.progress import Progress, Task

#: Debian's name of an architecture -> RPM's.
ARCHITECTURES = {debian: rpm for rpm, debian in DEBIAN_NAMES.items()}
#: All packages must be signed and none of their digests may fail (rpmkeys(8), `%_pkgverify_level`).
_CHECK = ("rpmkeys", "--define", "_pkgverify_level all")
_SHA256_DIGITS = 64
_LINES = 6


@dataclass(slots=True)
class Dnf:
    """The repositories of one base; `root` is an empty directory for dnf's own files."""

    base: Base
    root: Path
    progress: Progress
    _open: bool = field(default=False)

    def resolve(self, wanted: Mapping[str, str], below: Sequence[Layer]) -> Layer:
        """The layer for `{package: who asks for it}` on top of others; its `roles` are left empty.

        Raises `PiimageError` for a package that is not there, dependencies that cannot be, and repositories that
        do not answer.
        """
        present = [package for layer in below for package in layer.packages]
        title = f"reading the package repositories of base `{self.base.name}`"
        with self.progress.step(title):
            said = self._ask({"wanted": list(wanted), "below": [_full(p) for p in present]}, wanted)
        names = {package.name for package in present}
        packages = [_package(data) for data in said["packages"] if data["name"] not in names]
        ordered = tuple(sorted(packages, key=lambda p: p.name))
        steps = [Step("remove", tuple(sorted(said["removed"])))] if said["removed"] else []
        if ordered:
            steps.append(Step("unpack", tuple(p.name for p in ordered)))
        return Layer(
            base=self.base.name,
            below=lock.below(self.base, below),
            roles=(),
            wanted=tuple(wanted),
            packages=ordered,
            steps=tuple(steps),
        )

    def fetch(self, packages: Sequence[Package], directory: Path) -> None:
        """Download package files into `directory`, under the names that the lock gives them.

        Signatures are checked against the keys that the image's repositories name and the image holds; whether a
        file is the lock's is for the caller to check. Raises `PiimageError` as `resolve` does, and `VerifyError`.
        """
        require("rpmkeys")
        count = len(packages)
        names = [_full(package) for package in packages]
        with self.progress.step(f"downloading {count} package{'s' * (count != 1)}") as task:
            task.total(sum(package.size for package in packages))
            request = {"packages": names, "directory": str(directory)}
            said = self._ask(request, {}, task)
        for package, name in zip(packages, said["files"], strict=True):
            if name != package.file:
                (directory / name).replace(directory / package.file)
        keys = [key.removeprefix("file://") for key in said["keys"] if key.startswith("file://")]
        self._check([directory / package.file for package in packages], keys)

    def _check(self, paths: Sequence[Path], keys: Sequence[str]) -> None:
        """Raise `VerifyError` unless each package has a good signature by one of the keys."""
        database = self.root / "keys"
        database.mkdir(exist_ok=True)
        place = ("--dbpath", str(database))
        for key in keys:
            run([*_CHECK, *place, "--import", key], check=False)  # a key that is none signs nothing
        said = run([*_CHECK, *place, "--checksig", *paths], check=False)
        if said.returncode == 0:
            return
        bad = [line for line in said.text.splitlines() if "NOT OK" in line]
        if not bad:
            raise failure(said)
        told = "".join(f"\n    {line.rpartition('/')[2]}" for line in bad[:_LINES])
        raise VerifyError(
            f"a package of base `{self.base.name}` has no valid signature by a key that the base trusts{told}",
            hint="the keys are the image's own, named by `gpgkey=file:` of its repositories; nothing was installed",
        )

    def _ask(
        self, request: Mapping[str, object], wanted: Mapping[str, str], task: Task | None = None
    ) -> dict[str, Any]:
        """The last answer of `dnf_query`; errors become ours."""
        if not self._open:
            write_root(self.root, self.base.path, self.base.facts)
            self._open = True
        facts = self.base.facts
        architecture = ARCHITECTURES.get(facts.architecture)
        if architecture is None:
            raise UnsupportedError(f"RPM packages for `{facts.architecture}` are not supported")
        question = {
            "root": str(self.root),
            "architecture": architecture,
            "release": facts.os.version_id,
            **request,
        }
        asked = self.root / "question.json"
        asked.write_text(json.dumps(question), encoding="utf-8")
        last: dict[str, Any] = {}
        done = 0
        with (
            as_file(files("piimage.bake") / "dnf_query.py") as script,
            asked.open("rb") as stdin,
            (self.root / "dnf.err").open("w+b") as errors,
        ):
            # Isolated, with the modules of the distribution's own python, as dnf itself is run.
            argv = [sys.executable, "-I", str(script)]
            home = {"HOME": str(self.root)}
            with process(argv, stdin=stdin, stdout=PIPE, stderr=errors, env=home) as child:
                assert child.stdout is not None  # noqa: S101 -- process() pipes it
                for line in child.stdout:
                    last = json.loads(line)
                    if task is not None and "bytes" in last:
                        task.advance(max(last["bytes"] - done, 0))
                        done = max(last["bytes"], done)
                status = child.wait()
            errors.seek(0)
            words = errors.read().decode(errors="replace")
        if status != 0 or not last:
            raise ToolFailedError(f"dnf ended with exit status {status}{_telling(words)}")
        if "error" in last:
            raise _error(last, wanted, self.base)
        return last


def _error(said: Mapping[str, str], wanted: Mapping[str, str], base: Base) -> PiimageError:
    """What `dnf_query` answered, in words for somebody who did not start it."""
    words = _telling(said["text"])
    match said["error"]:
        case "missing":
            return MissingToolError(
                f"the Python module of dnf is not installed{words}",
                hint="on Debian: `apt-get install python3-dnf rpm`",
            )
        case "unknown" if said["name"] in wanted:
            return ConfigError(
                f"there is no {shown(said['name'])} in the package repositories of base `{base.name}`; "
                f"{wanted[said['name']]} asks for it",
                hint="correct its name, or map it in profiles/packages/ beside cluster.yaml",
            )
        case "unknown":
            return PiimageError(
                f"the package repositories of base `{base.name}` no longer have the locked {shown(said['name'])}",
                hint="`piimage lock --update` takes the present versions",
            )
        case "unresolved":
            return ToolFailedError(
                f"the packages wanted on base `{base.name}` cannot be installed together{words}",
                hint="the lines above name the package and what it lacks",
            )
        case _:
            return _unreachable(said["text"], base)


def _unreachable(text: str, base: Base) -> PiimageError:
    words = _telling(text)
    if full_disk(text):
        return WriteFailedError(
            f"no room for the packages of base `{base.name}`{words}",
            hint="set `PIIMAGE_CACHE` to a directory with some GiB free",
        )
    return ToolFailedError(
        f"cannot read the package repositories of base `{base.name}`{words}",
        hint="without network, or behind a proxy? dnf goes by the variables `http_proxy` and `https_proxy`",
    )


def _telling(text: str) -> str:
    """The last few lines, for the end of a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(f"\n    {line[:300]}" for line in lines[-_LINES:])


def _full(package: Package) -> str:
    return f"{package.name}-{package.version}.{package.architecture}"


def _package(data: Mapping[str, Any]) -> Package:
    """One package of the lock; raises `UnsupportedError` where a repository has no SHA-256 of it."""
    if len(data["digest"]) != _SHA256_DIGITS:
        raise UnsupportedError(f"the repository of {shown(data['name'])} has no SHA-256 of it")
    version = data["version"]
    plain = version.partition(":")[2] or version
    return Package(
        name=data["name"],
        version=version,
        architecture=data["architecture"],
        sha256=data["digest"],
        size=data["size"],
        installed=data["installed"],
        file=f"{data['name']}-{plain}.{data['architecture']}.rpm",
        automatic=data["automatic"],
        replaces=data["replaces"],
    )
