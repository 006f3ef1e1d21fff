"""What an image must hold, path by path, and what of it is otherwise: rules PI101 to PI106.

A promise comes from a census of the variant, from the imprint of its stamp, and from the plan, each of which knows
something that the others do not: the census every file of the base, the imprint a node's own files by digest, the
plan who wants a file and why. Later ones have the last word.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from piimage import label
from piimage.delta import Absent, Directory, File, Slot, Symlink, Tree
from piimage.disk.census import Seen
from piimage.disk.slots import PADDING
from piimage.verify.catalog import Finding
from piimage.verify.difference import difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from piimage.delta import Delta, Entry
    from piimage.disk.census import Census
    from piimage.imprint import Imprint
    from piimage.plan.plan import StampPlan, VariantPlan
    from piimage.verify.view import View

_LABEL = "security.selinux"
#: Sizes of slots are multiples of this.
_SLOT = 4096
_OTHERS_READ = 0o004


@dataclass(frozen=True, slots=True)
class Promise:
    """What must be at a path, None for nothing. `owner` is the component that wants it so, if that is known.

    `content` is whether content and size are known, `whole` whether attributes and flags are all known. `text` is the
    content itself, where that is at hand.
    """

    seen: Seen | None
    owner: str = ""
    content: bool = True
    whole: bool = True
    text: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Promises:
    """Promises by path as the running node has it; `everything` when no other path may be there but `allowed` ones.

    `hidden` are paths of the root file system that lie below where the firmware's partition is mounted.
    """

    paths: Mapping[str, Promise]
    everything: bool
    allowed: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()


def promised(
    census: Census | None,
    imprint: Imprint | None,
    plan: tuple[VariantPlan, StampPlan | None] | None,
    mountpoint: str,
    *,
    bare: bool = False,
) -> Promises:
    """All promises that are known; none where nothing is. `bare` is a variant without a stamp.

    Where it cannot be known whose card it is, what stamps fill in or replace is not compared.
    """
    paths: dict[str, Promise] = {}
    hidden: frozenset[str] = frozenset()
    if census is not None:
        hidden = frozenset(path for path in census.root if path.startswith(f"{mountpoint}/"))
        paths |= {path: Promise(s) for path, s in census.root.items() if path not in hidden}
        paths |= {mountpoint + path: Promise(seen) for path, seen in census.firmware.items()}
    if plan is not None:
        _planned(plan[0].delta, paths, known=census is not None)
    if imprint is not None:
        files = {**imprint.slots}
        files |= {f"{mountpoint}/{name}": d for name, d in imprint.firmware.items()}
        for path, (size, digest) in files.items():
            _hold(paths, path, size, digest)
    if not bare and imprint is None and (plan is None or plan[1] is None):
        for path in [path for path, promise in paths.items() if _stamped_over(path, promise)]:
            paths[path] = replace(paths[path], content=False)
    if plan is not None and plan[1] is not None:
        for path, text in _stamped(plan[0], plan[1], mountpoint):
            _hold(paths, path, *_digest(text), text)
    allowed = frozenset() if bare else frozenset({f"{mountpoint}/{label.NAME}"})
    return Promises(paths, everything=census is not None, allowed=allowed, hidden=hidden)


def _stamped_over(path: str, promise: Promise) -> bool:
    """Whether a stamp may have changed the file: a slot, which is padding in the variant, or the command line."""
    seen = promise.seen
    if seen is None or seen.kind != "file":
        return False
    return path.endswith("/cmdline.txt") or (
        seen.size % _SLOT == 0 and seen.sha256 == _padding(seen.size)
    )


@lru_cache
def _padding(size: int) -> str:
    return hashlib.sha256(PADDING * size).hexdigest()


def broken(promises: Promises, view: View) -> Iterator[Finding]:
    """Every path that is not as promised; of what lies in a directory that is missing, only the directory."""
    gone: list[str] = []
    for path, promise in sorted(promises.paths.items(), key=lambda item: item[0].split("/")):
        seen = view.seen(path)
        if seen is None and promise.seen is not None:
            if not any(path.startswith(f"{above}/") for above in gone[-1:]):
                yield Finding("PI103", path, _missing(promise))
                gone.append(path)
        elif seen is not None and promise.seen is None:
            yield Finding("PI104", path, f"it must not be there: {promise.owner} removes it")
        elif seen is not None and promise.seen is not None:
            yield from _compared(path, promise, promise.seen, seen, view)
    if promises.everything:
        yield from _extra(promises, view)


def _missing(promise: Promise) -> str:
    assert promise.seen is not None  # noqa: S101 -- what must not be there is not missed
    kind = {"dir": "directory", "other": "device"}.get(promise.seen.kind, promise.seen.kind)
    return f"the {kind}{_of(promise)} is missing"


def _of(promise: Promise) -> str:
    return f" of {promise.owner}" if promise.owner else ""


def _compared(
    path: str, promise: Promise, wanted: Seen, seen: Seen, view: View
) -> Iterator[Finding]:
    if wanted.kind != seen.kind:
        yield Finding("PI106", path, f"it is a {seen.kind}, not a {wanted.kind}{_of(promise)}")
        return
    if wanted.target != seen.target:
        yield Finding("PI106", path, f"it leads to `{seen.target}`, not to `{wanted.target}`")
    if promise.content and (wanted.size, wanted.sha256) != (seen.size, seen.sha256):
        yield Finding("PI101", path, _other_content(path, promise, wanted, seen, view))
    if view.on_firmware(path) is not None:
        return
    if wanted.mode != seen.mode and wanted.kind != "link":
        yield Finding("PI102", path, f"its mode is {seen.mode:04o}, not {wanted.mode:04o}")
    if (wanted.uid, wanted.gid) != (seen.uid, seen.gid):
        yield Finding(
            "PI102", path,
            f"it belongs to {seen.uid}:{seen.gid}, not to {wanted.uid}:{wanted.gid}",
        )  # fmt: skip
    yield from _attributes(path, promise, wanted, seen)


def _other_content(path: str, promise: Promise, wanted: Seen, seen: Seen, view: View) -> str:
    """With the line that differs, where the promised text is known and no secret."""
    words = [f"{seen.size} bytes instead of {wanted.size}"] if seen.size != wanted.size else []
    found = view.read(path)
    if promise.text is not None and found is not None and _digest(promise.text)[1] == wanted.sha256:
        boot = view.on_firmware(path) is not None
        shown = path == view.cmdline if boot else bool(wanted.mode & seen.mode & _OTHERS_READ)
        words.append(difference(promise.text, found, shown=shown))
    told = "; ".join(filter(None, words))
    return f"its content is another than promised{_of(promise)}{told and f': {told}'}"


def _attributes(path: str, promise: Promise, wanted: Seen, seen: Seen) -> Iterator[Finding]:
    names = wanted.attributes.keys() | (seen.attributes.keys() if promise.whole else set())
    for name in sorted(names):
        there, due = seen.attributes.get(name), wanted.attributes.get(name)
        if there != due:
            yield Finding("PI105", path, f"its {name} is {there or 'none'}, not {due or 'none'}")
    if promise.whole and wanted.flags != seen.flags:
        yield Finding("PI105", path, f"its flags are {seen.flags:#x}, not {wanted.flags:#x}")


def _extra(promises: Promises, view: View) -> Iterator[Finding]:
    """What is there and promised by nobody; of a directory and what is in it only the directory."""
    place = view.place.mountpoint
    under = {path for path in view.root if path.startswith(f"{place}/")}
    for path in sorted(under - promises.hidden):
        words = "nobody sees it there: the firmware partition is mounted over it"
        yield Finding("PI104", path, words)
    found = [*(view.root.keys() - under), *(place + path for path in view.firmware)]
    last = ""
    extra = [p for p in found if p not in promises.paths and p not in promises.allowed]
    for path in sorted(extra, key=lambda p: p.split("/")):
        if last and path.startswith(f"{last}/"):
            continue
        last = path
        yield Finding("PI104", path, "nobody has asked for it")


def _planned(delta: Delta, paths: dict[str, Promise], *, known: bool) -> None:
    """The plan's own entries over what the census has; without a census they are all there is."""
    for path, entry in delta:
        owner = delta.owners[path]
        match entry:
            case Absent():
                paths[path] = Promise(None, owner)
            case Tree():
                if entry.source != path:
                    paths.setdefault(entry.source, Promise(None, owner))
                if not known:
                    continue
            case _:
                seen = _made(entry)
                before = paths.get(path)
                if before is not None and before.seen is not None:
                    attributes = {**before.seen.attributes, **seen.attributes}
                    seen = replace(seen, attributes=attributes, flags=before.seen.flags)
                whole = before is not None and before.seen is not None
                content = not isinstance(entry, Slot)
                text = entry.content if isinstance(entry, File) else None
                paths[path] = Promise(seen, owner, content, whole, text)


def _made(entry: Entry) -> Seen:
    """What an entry leaves at its path."""
    assert not isinstance(entry, Absent | Tree)  # noqa: S101 -- they leave nothing
    labels = {_LABEL: entry.label} if entry.label else {}
    kind, mode, target, size, digest = "file", 0o777, "", 0, ""
    match entry:
        case File():
            mode, size = entry.mode, len(entry.content)
            digest = hashlib.sha256(entry.content).hexdigest()
        case Slot():
            mode, size = entry.mode, entry.size
        case Directory():
            kind, mode = "dir", entry.mode
        case Symlink():
            kind, target = "link", entry.target
    return Seen(
        kind=kind,
        mode=mode,
        uid=entry.uid,
        gid=entry.gid,
        size=size,
        sha256=digest,
        target=target,
        attributes=labels,
    )


def _stamped(
    variant: VariantPlan, stamp: StampPlan, mountpoint: str
) -> Iterator[tuple[str, bytes]]:
    """A node's own files."""
    for path, slot in variant.slots.items():
        yield path, stamp.slots[path].ljust(slot.size, PADDING)
    for name, content in stamp.firmware.items():
        yield f"{mountpoint}/{name}", content


def _digest(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()


def _hold(
    paths: dict[str, Promise], path: str, size: int, digest: str, text: bytes | None = None
) -> None:
    """Promise this content at `path`."""
    before = paths.get(path)
    if before is None or before.seen is None:
        seen = Seen(kind="file", mode=0o755, size=size, sha256=digest)
        paths[path] = Promise(seen, "the stamp", whole=False, text=text)
    else:
        seen = replace(before.seen, size=size, sha256=digest)
        paths[path] = replace(before, seen=seen, content=True, text=text)
