"""The lock file: which packages a bake installs, in which order, by name, version and sha256.

`lab.yaml` has `lab.lock` beside it. It has one layer per set of packages: the one that all roles of a base share,
then one on top for each role that wants more. A layer is known by what it stands on and what was wanted, so that
a lock is right or wrong without asking an archive. Written to be read and compared by people.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import yaml

from piimage.disk.atomic import write_bytes
from piimage.errors import ConfigError
from piimage.spec import source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.facts import Facts

VERSION = 1
_AGAIN = "`piimage lock --update` makes it anew"
_HEAD = """\
# Which packages piimage installs, written by it; `piimage lock --update` makes it anew.
# Keep it beside cluster.yaml, under version control: the same lock gives the same packages.
"""

#: `name`, or `name:architecture` where two architectures of it can be there.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*(:[a-z0-9-]+)?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~:%^-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Action = Literal["unpack", "configure", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package file: `size` in bytes, `installed` what it takes once unpacked, in KiB.

    `automatic` when it comes only because another needs it; `replaces` is the version that it takes the place of.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    installed: int
    file: str
    automatic: bool = False
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the package tool: `names` in order."""

    action: Action
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What is installed at one go.

    `base` is the base's name, `below` says what the layer stands on: the `installed_digest` of the base, then the
    digest of the layer below. `wanted` are the base's own names, in order. `roles` are for the reader.
    """

    base: str
    below: str
    roles: tuple[str, ...]
    wanted: tuple[str, ...]
    packages: tuple[Package, ...]
    steps: tuple[Step, ...]

    def digest(self) -> str:
        """SHA-256 (hex) over what is installed and how; whom it is for makes no difference."""
        data = asdict(self)
        for name in ("base", "roles"):
            del data[name]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @property
    def removed(self) -> tuple[str, ...]:
        """Packages of the base that have to go."""
        return tuple(n for step in self.steps if step.action == "remove" for n in step.names)

    def answers(self, below: str, wanted: Iterable[str]) -> bool:
        """Whether this is the layer of `wanted` on top of `below`."""
        return self.below == below and self.wanted == tuple(wanted)


@dataclass(frozen=True, slots=True)
class Lock:
    """All layers of a cluster."""

    layers: tuple[Layer, ...] = ()

    def find(self, below: str, wanted: Iterable[str]) -> Layer | None:
        """The layer of `wanted` on top of `below`, or None."""
        names = tuple(wanted)
        return next((layer for layer in self.layers if layer.answers(below, names)), None)

    def text(self) -> str:
        """The lock file."""
        data = {"version": VERSION, "layers": [_layer_data(layer) for layer in self.layers]}
        return _HEAD + yaml.dump(
            data, Dumper=_Dumper, sort_keys=False, width=10_000, default_flow_style=False
        )


def location(cluster_yaml: Path) -> Path:
    """Where the lock of `cluster_yaml` is: `lab.yaml` has `lab.lock` beside it."""
    return cluster_yaml.with_suffix(".lock")


def installed_digest(facts: Facts) -> str:
    """SHA-256 (hex) over the packages of an image: two images with equal ones can share a lock."""
    data = [facts.architecture, sorted(facts.packages.items())]
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def below(base: Base, chain: Sequence[Layer]) -> str:
    """What a layer on top of `chain` on `base` stands on."""
    return chain[-1].digest() if chain else installed_digest(base.facts)


def read(path: Path) -> Lock | None:
    """The lock at `path`, None when there is none; raises `ConfigError` for a file that is no lock of ours."""
    if not path.exists():
        return None
    data = source.read(path).data
    try:
        if data["version"] != VERSION:
            raise ConfigError(f"`{path}` is a lock of another version of piimage", hint=_AGAIN)
        return Lock(tuple(_layer(entry) for entry in data["layers"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"`{path}` is not a whole lock file", hint=_AGAIN) from error


def write(path: Path, lock: Lock) -> None:
    """Write the lock, all or nothing, unless the file says the same already."""
    text = lock.text().encode()
    if not path.exists() or path.read_bytes() != text:
        write_bytes(path, text)


def _layer(data: Mapping[str, Any]) -> Layer:
    return Layer(
        base=_text(data["base"]),
        below=_text(data["below"]),
        roles=tuple(map(_text, data["roles"])),
        wanted=tuple(map(_text, data["wanted"])),
        packages=tuple(_package(entry) for entry in data["packages"]),
        steps=tuple(_step(entry) for entry in data["steps"]),
    )


def _package(data: Mapping[str, Any]) -> Package:
    """What names a file or goes into a script is looked at: a lock may come from elsewhere."""
    package = Package(**data)
    for value, pattern in (
        (package.name, _NAME),
        (package.version, _WORD),
        (package.architecture, _WORD),
        (package.sha256, _SHA256),
        (package.file, _WORD),
        (package.replaces or "0", _WORD),
    ):
        if not pattern.fullmatch(value):
            raise ValueError(value)
    if min(int(package.size), int(package.installed)) < 0:
        raise ValueError(package.size)
    return package


def _step(data: Mapping[str, Any]) -> Step:
    ((action, names),) = data.items()
    if action not in ("unpack", "configure", "remove"):
        raise ValueError(action)
    if not all(_NAME.fullmatch(name) for name in names):
        raise ValueError(names)
    return Step(cast("Action", action), tuple(names))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _layer_data(layer: Layer) -> dict[str, Any]:
    return {
        "base": layer.base,
        "below": layer.below,
        "roles": _Line(layer.roles),
        "wanted": list(layer.wanted),
        "packages": [_Row(_shown(package)) for package in layer.packages],
        "steps": [{step.action: list(step.names)} for step in layer.steps],
    }


def _shown(package: Package) -> dict[str, Any]:
    """Fields in the order of the class, defaults left out."""
    return {
        n: value for n, value in asdict(package).items() if value is not False and value is not None
    }


class _Row(dict[str, Any]):
    """A mapping on one line."""


class _Line(list[Any]):
    """A list on one line."""

    def __init__(self, items: Iterable[Any]) -> None:
        super().__init__(items)


class _Dumper(yaml.SafeDumper):
    """YAML as people write it."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


_Dumper.add_representer(
    _Row, lambda d, row: d.represent_mapping("tag:yaml.org,2002:map", row, flow_style=True)
)
_Dumper.add_representer(
    _Line, lambda d, row: d.represent_sequence("tag:yaml.org,2002:seq", row, flow_style=True)
)
# What begins with a digit is quoted, lest somebody's YAML takes a hash for a number.
_Dumper.add_representer(
    str,
    lambda d, text: d.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text[:1].isalpha() else '"'
    ),
)
