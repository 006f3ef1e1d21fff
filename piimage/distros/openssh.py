"""How OpenSSH's server and client read their own files, sshd_config(5) and ssh_config(5)."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

#: Both take names that are not absolute for names there.
_FOLDER = "/etc/ssh"
#: Heads of blocks that are for everybody.
_ALL = {("host", "*"), ("match", "all")}
_TOKENS = re.compile(r'"([^"]*)"|([^\s"]+)')


def reads_drop_ins(text: str, folder: str, *, before: Collection[str] = ()) -> bool:
    """Whether a file with this `text` includes all `*.conf` of `folder`, for every host and client.

    The first value of a keyword counts: the line must stand before the first of `before` (in small letters).
    """
    wanted = {f"{folder}/*.conf", f"{folder}/*"}
    everybody = True
    for line in text.splitlines():
        keyword, value = split(line)
        word = keyword.lower()
        if word in before:
            return False
        if word in {"host", "match"}:
            everybody = (word, value.strip('"').lower()) in _ALL
        elif word == "include" and everybody:
            named = (quoted or bare for quoted, bare in _TOKENS.findall(value))
            if wanted & {posixpath.join(_FOLDER, name) for name in named}:
                return True
    return False


def split(line: str) -> tuple[str, str]:
    """Keyword (its case means nothing) and value of a line; two times `""` for a comment or an empty line."""
    line = line.strip()
    if not line or line[0] == "#":
        return "", ""
    word, value = (*re.split(r"\s*=\s*|\s+", line, maxsplit=1), "")[:2]
    return word, value.strip()
