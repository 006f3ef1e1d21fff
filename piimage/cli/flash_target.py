"""The question before a card is written, whether it is this one and may be lost: what is shown, who may answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from piimage.flash.guard import Examined
    from piimage.flash.sources import Source
    from piimage.flash.writer import Mode


@dataclass(frozen=True, slots=True)
class Consent:
    """What the user has agreed to on the command line."""

    allow: tuple[str, ...] = ()
    unmount: bool = False
    serial: str | None = None
    yes: bool = False

    @property
    def accepted(self) -> frozenset[str]:
        """Names of refusals that the user accepts."""
        return frozenset((*self.allow, *(("mounted",) if self.unmount else ())))


def screen(path: Path, consent: Consent) -> None:
    """Refuse a target that no source would make right: before a source is unpacked for minutes."""
    from piimage.flash.guard import admit, examine  # noqa: PLC0415 -- start-up time

    admit(examine(path), consent.accepted)


def admitted(path: Path, source: Source, consent: Consent) -> Examined:
    """The target, if nothing stands against it but what the user accepts; raises `DeviceRefusedError`."""
    from piimage.errors import DeviceRefusedError  # noqa: PLC0415 -- start-up time
    from piimage.flash.guard import admit, examine  # noqa: PLC0415 -- start-up time

    for file in source.files[1:]:
        admit(examine(path, image_size=source.payload.size, source=file), consent.accepted)
    found = examine(path, image_size=source.payload.size, source=source.files[0])
    device = admit(found, consent.accepted)
    if consent.serial is not None and device.serial != consent.serial:
        raise DeviceRefusedError(
            f"`{path}` is refused (serial): its serial number is {device.serial or 'not known'}, "
            f"not {consent.serial}",
            hint="`piimage flash --list` shows serial numbers",
        )
    return found


def confirm(
    jobs: Sequence[tuple[Examined, Source]],
    consent: Consent,
    mode: Mode,
    *,
    dry_run: bool = False,
) -> None:
    """Show what will go and what will come, and ask; raises `DeviceRefusedError` unless the answer is yes.

    If nobody is there to answer, that is an `UnansweredError`. Raises `ConfigError` for a node that is to get two.
    """
    from piimage.cli.lines import visible  # noqa: PLC0415 -- start-up time
    from piimage.errors import DeviceRefusedError, UnansweredError  # noqa: PLC0415 -- start-up time

    _refuse_twice(jobs)
    if consent.yes and not dry_run:
        for examined, _ in jobs:
            exact = examined.device.named_exactly() or (len(jobs) == 1 and consent.serial)
            if not exact:
                names = [str(path) for path in examined.device.by_id[:1]]
                raise DeviceRefusedError(
                    f"`--yes` needs a name that no other card can get, and `{examined.device.path}` is none",
                    hint=f"give {names[0] if names else 'its path in /dev/disk/by-id'}, or `--serial`",
                )
        return
    for line in (line for job in jobs for line in _lines(*job, mode)):
        print(visible(line), file=sys.stdout if dry_run else sys.stderr)
    if dry_run:
        return
    answer = _answer("Write it?" if len(jobs) == 1 else "Write them?")
    if answer.strip().lower() not in {"y", "yes"}:
        error = DeviceRefusedError if answer else UnansweredError
        raise error(
            "not confirmed, so nothing was written",
            hint="answer `y`; scripts use `--yes` with a by-id path or `--serial`",
        )


def release(jobs: Sequence[tuple[Examined, Source]], consent: Consent) -> None:
    """Unmount what is mounted of the cards, and look whether anything stands against them after that."""
    from piimage.flash.guard import unmount  # noqa: PLC0415 -- start-up time

    for examined, source in jobs:
        unmount(examined)
        admitted(examined.device.path, source, replace(consent, unmount=False))


def _refuse_twice(jobs: Sequence[tuple[Examined, Source]]) -> None:
    from piimage.errors import ConfigError, DeviceRefusedError  # noqa: PLC0415 -- start-up time

    seen: dict[object, Path] = {}
    nodes: dict[str, Path] = {}
    for examined, source in jobs:
        device = examined.device
        if source.node is not None:
            other = nodes.setdefault(source.node, device.path)
            if other is not device.path:
                raise ConfigError(
                    f"`{other}` and `{device.path}` are both to become {source.node}",
                    hint="two boards would have one name, address and host key: a card for each node",
                )
        before = seen.setdefault(device.identity, device.path)
        if before is not device.path:
            raise DeviceRefusedError(f"`{before}` and `{device.path}` are the same card")


def _lines(examined: Examined, source: Source, mode: Mode) -> Iterator[str]:
    from piimage.progress import human  # noqa: PLC0415 -- start-up time

    device, payload = examined.device, source.payload
    yield device.title
    for content in examined.contents:
        name = f"partition {content.number}" if content.number else "the whole"
        words = " ".join(word for word in (content.type, content.label) if word)
        yield f"  holds now: {name}, {human(content.size)}{f', {words}' if words else ''}"
    for mount in examined.mounts:
        yield f"  will be unmounted: {mount.point}"
    build = f", build {source.build}" if source.build else ""
    needed = f"{human(payload.map.expected())} of {human(payload.size)} to write"
    needed = {"update": f"what differs in {needed}", "resume": f"what is left of {needed}"}.get(
        mode, needed
    )
    yield f"  becomes: {source.title}{build}"
    yield f"  {needed}; everything on it is lost"


def _answer(question: str) -> str:
    """The line that is the answer; empty if nobody is there to give one."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 -- cli prints
    answer = sys.stdin.readline() if sys.stdin else ""
    if not answer.endswith("\n"):
        print(file=sys.stderr)  # noqa: T201 -- cli prints
    return answer
