"""A variant on its way: what whoever holds the state needs to stamp an image that was built elsewhere.

`NAME.variant.gz` beside the image has the facts of the base with its packages, from which a plan can be made without
that base, and what the plan was. Like the image it holds no secret and no identity.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from piimage import __version__
from piimage.bases.record import Base, Origin
from piimage.delta import File
from piimage.disk.atomic import write_bytes
from piimage.errors import ImageError, PiimageError
from piimage.facts import Facts
from piimage.plan.plan import plan_variant
from piimage.report import shown
from piimage.variant import variant_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from piimage.cluster import Cluster, Role
    from piimage.plan.plan import VariantPlan
    from piimage.preview.record import Record

SUFFIX = ".variant.gz"
#: The key of the document; another version has another one.
_KEY = "variant 1"
#: More than any facts take, unpacked.
_MOST = 256 << 20
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One variant: `image` is its file, `sha256` of that; `plan` is what was planned of it and of its nodes.

    `base` has the facts that it was planned from. `piimage` is the version that built it.
    """

    id: str
    role: str
    image: Path
    sha256: str
    base: Base
    piimage: str
    plan: Record = field(repr=False)


def write(made: Bundle) -> Path:
    """Write it beside its image. Equal bundles are equal files."""
    name = made.image.name.partition(".img")[0].partition(".qcow2")[0]
    path = made.image.with_name(name + SUFFIX)
    base = made.base
    document = {
        _KEY: {
            "id": made.id,
            "role": made.role,
            "image": made.image.name,
            "sha256": made.sha256,
            "piimage": made.piimage,
            "base": {
                "name": base.name,
                "id": base.id,
                "origin": _origin(base),
                "tools": dict(base.tools),
                "lock": base.lock,
            },
            "facts": base.facts.to_json(),
            "plan": made.plan,
        }
    }
    text = json.dumps(document, sort_keys=True).encode()
    write_bytes(path, gzip.compress(text, mtime=0), mode=0o644)
    return path


def read_all(directory: Path) -> tuple[Bundle, ...]:
    """All bundles in `directory` and below; raises `PiimageError` if there are none or one is damaged."""
    if not directory.is_dir():
        raise PiimageError(f"`{directory}` is not a directory")
    found = tuple(_read(path) for path in sorted(directory.rglob(f"*{SUFFIX}")))
    if not found:
        raise PiimageError(
            f"`{directory}` holds no variant", hint="`piimage build --only-variants` makes them"
        )
    return found


def match(bundles: Sequence[Bundle], cluster: Cluster, role: Role) -> tuple[Bundle, VariantPlan]:
    """The bundle that is what `cluster` wants for `role` now, with the plan of it.

    Raises `PiimageError` that says how the nearest one differs.
    """
    reasons = []
    for bundle in bundles:
        if bundle.role != role.name:
            continue
        try:
            planned = plan_variant(cluster, role, bundle.base.facts)
        except PiimageError as error:
            reasons.append(error.message)
            continue
        if variant_id(bundle.base, planned) == bundle.id:
            return bundle, planned
        reasons.append(_reason(bundle, planned))
    if not reasons:
        roles = ", ".join(dict.fromkeys(shown(bundle.role) for bundle in bundles))
        reasons = [f"it has {roles}"]
    raise PiimageError(
        f"there is no variant of role `{role.name}` as cluster.yaml wants it now: {reasons[0]}",
        hint="`piimage build --only-variants` makes it, from the same cluster.yaml, overlays and profiles",
    )


def _reason(bundle: Bundle, planned: VariantPlan) -> str:
    """Why a variant is another than the planned one."""
    if bundle.piimage != __version__:
        return f"piimage {shown(bundle.piimage)} built it, this is `{__version__}`"
    there = {
        str(file["path"]): file["sha256"]
        for variant in bundle.plan["variants"]
        for file in variant["files"]
    }
    now = {
        path: hashlib.sha256(entry.content).hexdigest()
        for path, entry in planned.delta
        if isinstance(entry, File)
    }
    other = sorted(p for p in now if p in there and there[p] != now[p])
    other += sorted(p for p in now if p not in there and _changes(bundle, p, now[p]))
    paths = ", ".join(f"`{path}`" for path in other[:_SHOWN])
    return f"other files, such as {paths}" if paths else "other files, modes or owners"


def _changes(bundle: Bundle, path: str, sha256: str) -> bool:
    """Whether a file of that digest is another than the base has."""
    fact = bundle.base.facts.files.get(path)
    content = fact.content if fact is not None else None
    return content is None or hashlib.sha256(content).hexdigest() != sha256


def _read(path: Path) -> Bundle:
    try:
        with gzip.open(path) as file:
            text = file.read(_MOST)
        found: Mapping[str, Any] = json.loads(text)[_KEY]
        image, base = path.with_name(str(found["image"])), found["base"]
        made = Bundle(
            id=str(found["id"]),
            role=str(found["role"]),
            image=image,
            sha256=str(found["sha256"]),
            piimage=str(found["piimage"]),
            plan=dict(found["plan"]),
            base=Base(
                name=str(base["name"]),
                path=image,
                id=str(base["id"]),
                facts=Facts.from_json(found["facts"]),
                origin=Origin(**base["origin"]),
                tools=dict(base["tools"]),
                lock=base["lock"],
            ),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(
            f"`{path}` is damaged or of another version of piimage",
            hint="build the variant again with `piimage build --only-variants`",
        ) from error
    if not image.is_file():
        raise ImageError(f"`{image}` is not there, which belongs to `{path.name}`")
    return made


def _origin(base: Base) -> dict[str, Any]:
    """Where the base came from; when packages were baked into it is no matter, and would differ."""
    return {**asdict(base.origin), **({"at": ""} if base.lock else {})}
