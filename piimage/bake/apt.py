"""Debian packages, resolved and fetched by the host's apt against the image's own archive."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from piimage.bake import apt_errors, lock
from piimage.bake.apt_root import STATUS, write_root
from piimage.bake.dpkg_records import fields, installed
from piimage.bake.lock import Layer, Package, Step
from piimage.errors import ToolFailedError
from piimage.run import PIPE, find, process, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from piimage.bake.lock import Action
    from piimage.bases.record import Base
    from piimage.progress import Progress
    from piimage.run import Result

_EVENT = re.compile(
    r"(?P<what>Inst|Conf|Remv|Purg) (?P<name>\S+)(?: \[(?P<old>[^\]]+)\])?"
    r"(?: \((?P<new>\S+) .*\[(?P<architecture>[^\]]+)\]\))?.*"
)
_ACTIONS = {"Inst": "unpack", "Conf": "configure", "Remv": "remove", "Purg": "remove"}
_FETCHING = re.compile(rb"dlstatus:\d+:([0-9.]+):(.*)")
_EACH = 100  # names on one command line of apt-cache


@dataclass(slots=True)
class Apt:
    """The archive of one base; `root` is an empty directory for apt's own files, on a path without blanks."""

    base: Base
    root: Path
    progress: Progress
    _environment: dict[str, str] = field(default_factory=dict)
    _status: str = ""

    def resolve(self, wanted: Mapping[str, str], below: Sequence[Layer]) -> Layer:
        """The layer for `{package: who asks for it}` on top of others; its `roles` are left empty.

        Raises `PiimageError` for a package that is not there, dependencies that cannot be, an archive that does
        not answer, and signatures that do not hold.
        """
        self._open()
        self._assume(below)
        names = tuple(wanted)
        said = self._apt(["apt-get", "--simulate", "install", *names], check=False)
        if said.returncode != 0:
            raise apt_errors.unresolved(said, wanted, self.base, self._names)
        events = [m for m in map(_EVENT.fullmatch, said.text.splitlines()) if m]
        records = self._records(events)
        native = self.base.facts.architecture
        packages = [
            _package(event, records[_key(event)], native, wanted)
            for event in events
            if event["what"] == "Inst"
        ]
        return Layer(
            base=self.base.name,
            below=lock.below(self.base, below),
            roles=(),
            wanted=names,
            packages=tuple(sorted(packages, key=lambda p: p.name)),
            steps=steps((_ACTIONS[e["what"]], _name(e, native)) for e in events),
        )

    def fetch(self, packages: Sequence[Package], directory: Path) -> None:
        """Download package files into `directory`, under the names that the lock gives them.

        Signatures and hashes are checked by apt against the archive's signed index; whether it is the lock's file
        is for the caller to check. Raises `PiimageError` as `resolve` does.
        """
        self._open()
        names = [f"{p.name}={p.version}" for p in packages]
        total = sum(p.size for p in packages)
        title = f"downloading {len(packages)} package{'s' * (len(packages) != 1)}"
        argv = ["apt-get", "-q", "-o", "APT::Status-Fd=1", "download", *names]
        with self.progress.step(title) as task, (self.root / "fetch.err").open("w+b") as errors:
            task.total(total)
            done = 0
            with process(
                argv, env=self._environment, stdout=PIPE, stderr=errors, cwd=directory
            ) as child:
                assert child.stdout is not None  # noqa: S101 -- process() pipes it
                for line in child.stdout:
                    match = _FETCHING.match(line.strip())
                    if match:
                        at = int(float(match[1]) * total / 100)
                        task.advance(max(at - done, 0))
                        done = max(at, done)
                status = child.wait()
            errors.seek(0)
            words = errors.read().decode(errors="replace")
        if status != 0:
            raise apt_errors.unfetched(words, self.base)

    def _open(self) -> None:
        """Make the private root and read the archive's indices, once."""
        if self._environment:
            return
        find("apt-get")
        environment = write_root(self.root, self.base.path, self.base.facts)
        with self.progress.step(f"reading the package archive of base `{self.base.name}`"):
            said = run(["apt-get", "-q", "update"], env=environment, check=False)
        if said.returncode != 0:
            raise apt_errors.unreachable(said, self.base)
        self._environment = environment
        self._status = (self.root / STATUS).read_text(encoding="utf-8", errors="surrogateescape")

    def _assume(self, layers: Sequence[Layer]) -> None:
        """Take the base with `layers` for what is installed."""
        status = self._status
        for layer in layers:
            records = self._show((p.name.partition(":")[0], p.version) for p in layer.packages)
            status = installed(status, records.values(), layer.removed)
        (self.root / STATUS).write_text(status, encoding="utf-8", errors="surrogateescape")

    def _names(self, prefix: str) -> list[str]:
        """Names in the archive that begin like this."""
        return self._apt(["apt-cache", "pkgnames", prefix], check=False).text.split()

    def _apt(self, argv: Sequence[str], *, check: bool = True) -> Result:
        return run(argv, env=self._environment, check=check)

    def _records(self, events: Iterable[re.Match[str]]) -> dict[tuple[str, str], dict[str, str]]:
        wanted = {_key(event) for event in events if event["what"] == "Inst"}
        found = self._show(wanted)
        missing = sorted(wanted - found.keys())
        if missing:
            raise ToolFailedError(
                f"`apt-cache show` says nothing of `{missing[0][0]}` {missing[0][1]}"
            )
        return {key: fields(text) for key, text in found.items()}

    def _show(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Paragraphs of the archive's index by name and version."""
        names = [f"{name}={version}" for name, version in sorted(keys)]
        found: dict[tuple[str, str], str] = {}
        for start in range(0, len(names), _EACH):
            said = self._apt(["apt-cache", "show", *names[start : start + _EACH]])
            for paragraph in said.text.split("\n\n"):
                record = fields(paragraph)
                if "Package" in record and "SHA256" in record:
                    found.setdefault((record["Package"], record["Version"]), paragraph.strip())
        return found


def steps(events: Iterable[tuple[str, str]]) -> tuple[Step, ...]:
    """As few calls as keep the order in which apt unpacks and configures; the rest is configured at the end.

    A package is configured early only where another's Pre-Depends ask for it, so what comes last in apt's
    order needs no step: `dpkg --configure -a` ends every installation.
    """
    grouped: list[tuple[str, list[str]]] = []
    for action, name in events:
        if grouped and grouped[-1][0] == action:
            grouped[-1][1].append(name)
        else:
            grouped.append((action, [name]))
    if grouped and grouped[-1][0] == "configure":
        grouped.pop()
    return tuple(Step(cast("Action", action), tuple(names)) for action, names in grouped)


def _key(event: re.Match[str]) -> tuple[str, str]:
    """Name without an architecture, and version."""
    return event["name"].partition(":")[0], event["new"]


def _name(event: re.Match[str], native: str) -> str:
    """A name as dpkg takes it: with the architecture where it is neither the image's nor `all`."""
    name = event["name"].partition(":")[0]
    foreign = event["architecture"] not in (native, "all", None)
    return f"{name}:{event['architecture']}" if foreign else str(event["name"])


def _package(
    event: re.Match[str], record: Mapping[str, str], native: str, wanted: Mapping[str, str]
) -> Package:
    """One package of the lock; the file has the name that `apt-get download` gives it."""
    version, architecture = record["Version"], record["Architecture"]
    name = _name(event, native)
    return Package(
        name=name,
        version=version,
        architecture=architecture,
        sha256=record["SHA256"],
        size=int(record["Size"]),
        installed=int(record.get("Installed-Size", "0")),
        file=f"{record['Package']}_{version.replace(':', '%3a')}_{architecture}.deb",
        automatic=name not in wanted and not event["old"],
        replaces=event["old"],
    )
