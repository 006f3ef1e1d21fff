"""What apt says when it fails, in words for somebody who did not start it."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from piimage.disk.atomic import full_disk
from piimage.errors import (
    ConfigError,
    PiimageError,
    ToolFailedError,
    VerifyError,
    WriteFailedError,
)
from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from piimage.bases.record import Base
    from piimage.run import Result

_UNKNOWN = re.compile(
    r"E: (?:Unable to locate package (?P<name>\S+)"
    r"|Package '(?P<virtual>[^']+)' has no installation candidate"
    r"|Version '[^']*' for '(?P<version>[^']+)' was not found)"
)
_SIGNATURE = re.compile(
    r"NO_PUBKEY|BADSIG|EXPKEYSIG|is not signed|signatures? (?:could|couldn)|signatures were invalid|not available:|"
    r"clearsigned|public key",
    re.IGNORECASE,
)
#: What apt says of an archive that no longer has the release: Raspbian's, Debian's and Ubuntu's move old ones.
_GONE = re.compile(r"does not have a Release file|no longer has a Release file|\b404\b")
_HASH = re.compile(r"Hash Sum mismatch|unexpected size|Hashes of expected file", re.IGNORECASE)
_LINES = 6
#: How many letters of a mistyped name are taken to be right, so that not all of an archive's names are compared.
_BEGINNING = 2


def unresolved(
    said: Result, wanted: Mapping[str, str], base: Base, names: Callable[[str], list[str]]
) -> PiimageError:
    """For `apt-get install` that found no answer; `names` gives the archive's names that begin in some way."""
    unknown = _UNKNOWN.search(said.stderr.decode(errors="replace"))
    if unknown:
        name = unknown["name"] or unknown["virtual"] or unknown["version"]
        what = f"there is no {shown(name)}"
        if unknown["virtual"]:
            what = f"{shown(name)} is only a virtual package"
        close = difflib.get_close_matches(name, names(name[:_BEGINNING]), 1)
        meant = f"did you mean {shown(close[0])}? else " if close else ""
        return ConfigError(
            f"{what} in the package archive of base `{base.name}`; {wanted.get(name, 'a profile')} asks for it",
            hint=f"{meant}correct its name, or map it in profiles/packages/ beside cluster.yaml",
        )
    words = _telling([*said.text.splitlines(), *said.stderr.decode(errors="replace").splitlines()])
    return ToolFailedError(
        f"the packages wanted on base `{base.name}` cannot be installed together{words}",
        hint="the lines above name the package and what it lacks",
    )


def unreachable(said: Result, base: Base) -> PiimageError:
    """For `apt-get update` that did not bring all indices."""
    text = said.text + said.stderr.decode(errors="replace")
    if _GONE.search(text) and not _SIGNATURE.search(text):
        words = _telling(text.splitlines())
        return ToolFailedError(
            f"the package archive of base `{base.name}` is not where the image's sources say{words}",
            hint="old releases move to an archive of old releases: write its address into /etc/apt of the image before"
            " it is imported, or use a newer base",
        )
    return _fetching(text, base, "the package archive")


def unfetched(text: str, base: Base) -> PiimageError:
    """For `apt-get download` that did not bring all files."""
    unknown = _UNKNOWN.search(text)
    if unknown:
        name = unknown["name"] or unknown["virtual"] or unknown["version"]
        return PiimageError(
            f"the package archive of base `{base.name}` no longer has the locked version of {shown(name)}",
            hint="`piimage lock --update` takes the present versions",
        )
    return _fetching(text, base, "a package")


def _fetching(text: str, base: Base, what: str) -> PiimageError:
    words = _telling(text.splitlines())
    if _SIGNATURE.search(text):
        return VerifyError(
            f"{what} of base `{base.name}` has no valid signature by a key that the base trusts{words}",
            hint="a proxy in between, or a base too old to know the archive's present key? nothing was installed",
        )
    if _HASH.search(text):
        return VerifyError(
            f"{what} of base `{base.name}` is not what the archive's signed index says{words}",
            hint="a proxy with stale files, or an archive in the middle of an update? try again later",
        )
    if full_disk(text):
        return WriteFailedError(
            f"no room for {what} of base `{base.name}`{words}",
            hint="set `PIIMAGE_CACHE` to a directory with some GiB free",
        )
    return ToolFailedError(
        f"cannot fetch {what} of base `{base.name}`{words}",
        hint="without network, or behind a proxy? apt's own proxy settings of this machine are used",
    )


def _telling(lines: Iterable[str]) -> str:
    """The last few lines that say something, for the end of a message."""
    words = [line.strip() for line in lines if line.strip()]
    telling = [
        w for w in words if re.match(r"[EW]:|Err:|\S+ : |Depends:|Breaks:|Conflicts:", w)
    ] or words
    return "".join(f"\n    {line[:300]}" for line in dict.fromkeys(telling[-_LINES:]))
