"""`piimage flash --list`: what could be written to, and why the rest could not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.flash.candidates import Candidate

_NONE = "no card to write to: put one in, or see below why a device is none"


def show(*, json_output: bool = False) -> None:
    """Print every disk of this machine: candidates first, with the names that `--yes` accepts."""
    from piimage.cli.lines import visible  # noqa: PLC0415 -- start-up time
    from piimage.flash.candidates import candidates  # noqa: PLC0415 -- start-up time

    found = candidates()
    if json_output:
        print(json.dumps([candidate.document() for candidate in found], indent=2))  # noqa: T201 -- cli prints
    else:
        print("\n".join(map(visible, lines(found))))  # noqa: T201 -- cli prints


def lines(found: Sequence[Candidate]) -> Iterator[str]:
    """The candidates with what is on them, then the others with every reason."""
    possible = [candidate for candidate in found if candidate.possible]
    yield "can be written to:" if possible else _NONE
    for candidate in possible:
        yield from _possible(candidate)
    others = [candidate for candidate in found if not candidate.possible]
    if others:
        yield ""
        yield "cannot be written to:"
    loops = [each for each in others if each.examined.device.transport == "loop"]
    for candidate in (each for each in others if each not in loops):
        yield f"  {candidate.examined.device.title}"
        refusals = candidate.examined.refusals
        # An option that accepts one reason is no way out where another one stands all the same.
        helps = all(refusal.override for refusal in refusals)
        for refusal in refusals:
            option = f" (or `{refusal.override}`)" if helps else ""
            yield f"    {refusal.name}: {refusal.reason}{option}"
    if loops:
        many = "s, which play files" if len(loops) > 1 else ", which plays a file"
        yield f"  {len(loops)} loop device{many} of this machine"


def _possible(candidate: Candidate) -> Iterator[str]:
    from piimage.host import by_sudo  # noqa: PLC0415 -- start-up time

    device, label = candidate.examined.device, candidate.label
    yield f"  {device.title}"
    if label:
        yield f"    holds {label.node} of {label.cluster}, build {label.build}"
    elif not candidate.readable:
        yield f"    what it holds only root may read: `{by_sudo()} flash --list`"
    else:
        parts = [content.words for content in candidate.examined.contents]
        yield f"    holds {', '.join(parts) if parts else 'nothing known'}"
    for refusal in candidate.examined.refusals:
        yield f"    {refusal.reason}: `{refusal.override}` unmounts it"
    for path in device.by_id:
        yield f"    {path}"
