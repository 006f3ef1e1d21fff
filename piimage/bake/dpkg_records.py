"""Paragraphs of dpkg's and apt's data bases (deb-control(5), dpkg's status)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: Fields of an archive's index that a status file does not have.
_OF_THE_ARCHIVE = re.compile(
    r"^(Filename|Size|MD5sum|SHA1|SHA256|SHA512|Description-md5|Tag|Section-?.*|Status):.*\n(?:[ \t].*\n)*",
    re.MULTILINE,
)


def fields(paragraph: str) -> dict[str, str]:
    """Field -> first line of its value."""
    lines = (line for line in paragraph.splitlines() if line[:1] not in ("", " ", "\t", "#"))
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, sign, value in pairs if sign}


def installed(status: str, added: Iterable[str], removed: Collection[str]) -> str:
    """The status file `status` as it is once the packages of the paragraphs `added` are installed.

    A package of the same name and architecture goes; so do the names in `removed`.
    """
    new = [_status(paragraph) for paragraph in added]
    keys = {_key(paragraph) for paragraph in new}
    kept = [
        paragraph
        for paragraph in re.split(r"\n(?:[ \t]*\n)+", status.strip("\n"))
        if paragraph and _key(paragraph) not in keys and _key(paragraph)[0] not in removed
    ]
    return "\n\n".join([*kept, *new]) + "\n"


def _status(paragraph: str) -> str:
    own = _OF_THE_ARCHIVE.sub("", paragraph.strip("\n") + "\n").rstrip("\n")
    return f"{own}\nStatus: install ok installed"


def _key(paragraph: str) -> tuple[str, str]:
    """Name and architecture; `all` is as good as the native one."""
    found = fields(paragraph)
    return found.get("Package", ""), found.get("Architecture", "")
