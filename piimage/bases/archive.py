"""The Debian archive as this host has it configured, and mmdebstrap run against it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.errors import ToolFailedError
from piimage.run import available, process, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from piimage.progress import Task

_FORMAT = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
_PROGRESS = re.compile(rb"^(I: .*|Setting up ([^ ]+).*|Unpacking ([^ ]+).*|update-initramfs: .*)$")
#: How many packages mmdebstrap unpacks and sets up is not known before; this is for words, not for
#: an amount.
_WORDS_KEPT = 12
#: apt's words for a file that it could not get: where it is, what went wrong.
_NOT_FETCHED = re.compile(r"E: Failed to fetch (\S+)\s+(.+)")
_SAYS_NOTHING = ("E: mmdebstrap failed to run",)


def sources(suite: str, components: str) -> list[str]:
    """The lines of sources.list for `suite` and its updates, from the archive that this host uses.

    Empty on a host that uses no Debian archive: then mmdebstrap takes its own default.
    """
    if not available("apt-get"):
        return []
    listed = run(
        ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"], check=False
    )
    main = security = ""
    for line in listed.text.splitlines():
        origin, label, uri = line.split("|", 2)
        if uri.startswith("cdrom:"):
            continue  # the disc that this host was installed from
        if origin == "Debian" and label == "Debian":
            main = main or uri
        elif origin == "Debian" and label == "Debian-Security":
            security = security or uri
    if not main:
        return []
    names = components.replace(",", " ")
    lines = [f"deb {main} {suite} {names}", f"deb {main} {suite}-updates {names}"]
    if security:
        lines.append(f"deb {security} {suite}-security {names}")
    return lines


def mmdebstrap(argv: Sequence[str], *, env: Mapping[str, str], log: Path, task: Task) -> None:
    """Run mmdebstrap, note its steps on `task`, keep all it says in `log`.

    Raises `ToolFailedError`: one sentence when it got nothing from the archive, else its telling last lines.
    """
    with log.open("wb") as record, process(argv, env=env) as child:
        assert child.stdout is not None  # noqa: S101 -- process() pipes it
        for line in child.stdout:
            record.write(line)
            match = _PROGRESS.match(line.strip())
            if match:
                task.note(match.group(1).decode(errors="replace")[:60])
        status = child.wait()
    if status != 0:
        raise _failure(status, log.read_text(encoding="utf-8", errors="replace").splitlines())


def _failure(status: int, lines: Sequence[str]) -> ToolFailedError:
    fetches = [found for line in lines if (found := _NOT_FETCHED.match(line))]
    if fetches:
        url, reason = fetches[0].groups()
        return ToolFailedError(
            f"cannot fetch `{url}` from the package archive: {reason.strip()}",
            hint="without network, or behind a proxy? `apt-get update` must work on this machine",
        )
    telling = [
        line
        for line in lines
        if line.startswith(("E:", "W:", "dpkg:", "Err:")) and line not in _SAYS_NOTHING
    ]
    detail = "".join(f"\n    {line[:300]}" for line in (telling or lines)[-_WORDS_KEPT:])
    return ToolFailedError(f"`mmdebstrap` failed with exit status {status}{detail}")
